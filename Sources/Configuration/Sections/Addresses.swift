import Reactor

/// Addresses to listen on, ranges of addresses, and hosts.
enum Addresses {
    private static let ports = 1...65_535

    /// `host:port` with a literal address; `:port` is every IPv4 address. Port 0 lets the system choose.
    static func listen(_ value: Value) -> String? {
        guard let text = value.text() else { return nil }
        let whole = text.hasPrefix(":") ? "0.0.0.0\(text)" : text
        guard let address = SocketAddress.parse(whole) else {
            value.problem("\"\(value.written)\" is not an address like 0.0.0.0:8443 or [::]:8443")
            return nil
        }
        if address.port != 0 {
            if let line = value.context.listening["\(address)"] {
                value.problem("\"\(value.written)\" is already listened on by line \(line)")
            }
            value.context.listening["\(address)"] = value.place.line
        }
        return whole
    }

    /// `10.0.0.0/8`, `::1`.
    static func range(_ value: Value) -> String? {
        guard let text = value.text() else { return nil }
        guard AddressRange.parse(text) != nil else {
            value.problem("\"\(value.written)\" is not an address or a range like 10.0.0.0/8")
            return nil
        }
        return text
    }

    /// A name, in lower case.
    static func host(_ value: Value) -> String? {
        guard let text = value.text() else { return nil }
        guard let name = hostAndPort(text[...], port: 1), !text.contains(":") else {
            value.problem("\"\(value.written)\" is not a host name like api.example.com")
            return nil
        }
        return name.host.lowercased()
    }

    /// A DNS name, an IPv4 address or a bracketed IPv6 address, with a port or `port`. The brackets go.
    static func hostAndPort(_ text: Substring, port: Int) -> (host: String, port: Int)? {
        var host = text
        var number = port
        // A colon inside brackets belongs to the address.
        if !text.hasSuffix("]"), let colon = text.lastIndex(of: ":") {
            guard let written = Units.digits(text[text.index(after: colon)...]) else { return nil }
            number = written
            host = text[..<colon]
        }
        guard ports.contains(number) else { return nil }
        if host.hasPrefix("["), host.hasSuffix("]") {
            let inside = String(host.dropFirst().dropLast())
            return isIPv6(inside) ? (inside, number) : nil
        }
        return isName(host) || isIPv4(host) ? (String(host), number) : nil
    }

    private static func isIPv4(_ text: Substring) -> Bool {
        !text.contains(":") && SocketAddress(ip: String(text), port: 0) != nil
    }

    private static func isIPv6(_ text: String) -> Bool {
        text.contains(":") && SocketAddress(ip: text, port: 0) != nil
    }

    /// RFC 1123 2.1 with underscores, which container networks use. The last label is not a number:
    /// `1.2.3.999` is a mistyped address.
    private static func isName(_ text: Substring) -> Bool {
        let labels = text.split(separator: ".", omittingEmptySubsequences: false)
        guard text.utf8.count <= 253, let last = labels.last, !last.utf8.allSatisfy(Bytes.isDigit) else {
            return false
        }
        return labels.allSatisfy { label in
            (1...63).contains(label.utf8.count) && !label.hasPrefix("-") && !label.hasSuffix("-")
                && label.utf8.allSatisfy { Bytes.isLetterOrDigit($0) || "-_".utf8.contains($0) }
        }
    }
}
