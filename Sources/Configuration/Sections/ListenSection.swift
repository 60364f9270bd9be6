/// `listen` and `admin`.
struct ListenSection {
    var configuration: ListenConfiguration
    var exposedKeys: ExposedKeyPolicy?

    static func read(_ value: Value) -> ListenSection? {
        guard let section = value.section() else { return nil }
        defer { section.finish() }
        var exposed: ExposedKeyPolicy?
        let plaintext = section["plaintext"].flatMap { plaintextValue -> PlaintextListen? in
            guard let plain = plaintextValue.section() else { return nil }
            defer { plain.finish() }
            exposed = plain["exposed_keys"]?.choice([("report", .report), ("revoke", .revoke)])
            guard let address = plain.required("address", "listen.plaintext").flatMap(Addresses.listen) else {
                return nil
            }
            return PlaintextListen(address: address)
        }
        guard let https = section.required("https", "listen")?.section() else { return nil }
        defer { https.finish() }
        let address = https.required("address", "listen.https").flatMap(Addresses.listen)
        let certificates = readCertificates(https)
        let minimum = https["minimum_version"]?.choice([("1.2", TLSMinimum.v1_2), ("1.3", .v1_3)]) ?? .v1_2
        let clientCA = https["client_ca"].flatMap(Paths.readable)
        let strictHost = https["strict_host"]?.bool() ?? false
        guard let address, !certificates.isEmpty else { return nil }
        return ListenSection(
            configuration: ListenConfiguration(
                httpsAddress: address, certificates: certificates, minimumTLSVersion: minimum,
                clientCAPath: clientCA, strictHost: strictHost, plaintext: plaintext),
            exposedKeys: exposed)
    }

    private static func readCertificates(_ https: Section) -> [CertificateFiles] {
        guard let value = https.required("certificates", "listen.https") else { return [] }
        let list = value.list()
        if list.isEmpty { value.problem("listen.https needs at least one certificate") }
        return list.compactMap { item in
            guard let section = item.section() else { return nil }
            defer { section.finish() }
            let chain = section.required("chain", "a certificate").flatMap(Paths.readable)
            let key = section.required("private_key", "a certificate").flatMap(Paths.readable)
            guard let chain, let key else { return nil }
            return CertificateFiles(chainPath: chain, privateKeyPath: key)
        }
    }
}

enum AdminSection {
    static func read(_ value: Value) -> AdminConfiguration? {
        guard let section = value.section() else { return nil }
        defer { section.finish() }
        let token = section["token_file"].flatMap(Paths.readable)
        guard let address = section.required("address", "admin").flatMap(Addresses.listen) else { return nil }
        return AdminConfiguration(address: address, tokenFile: token)
    }
}

/// Addresses to listen on and ranges of addresses.
enum Addresses {
    /// `host:port` with a literal address; `:port` listens everywhere.
    static func listen(_ value: Value) -> String? {
        guard let text = value.nonEmptyText() else { return nil }
        guard let (host, port) = split(text), port <= 65_535,
            host.isEmpty || isIPv4(host) || isIPv6(host)
        else {
            value.problem("\"\(text)\" is not an address like 0.0.0.0:8443 or [::]:8443")
            return nil
        }
        return host.isEmpty ? "0.0.0.0:\(port)" : text
    }

    /// Splits at the port; brackets around an IPv6 address go.
    static func split(_ text: String) -> (host: String, port: Int)? {
        guard let colon = text.lastIndex(of: ":"),
            let port = Units.digits(text[text.index(after: colon)...])
        else { return nil }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = String(host.dropFirst().dropLast())
            guard isIPv6(host) else { return nil }
        } else if host.contains(":") {
            return nil
        }
        return (host, port)
    }

    static func isIPv4(_ text: String) -> Bool {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts.allSatisfy { Units.digits($0).map { $0 <= 255 } ?? false }
    }

    static func isIPv6(_ text: String) -> Bool {
        guard text.contains(":"), text.utf8.count <= 45 else { return false }
        let groups = text.split(separator: ":", omittingEmptySubsequences: false)
        let isHex = groups.allSatisfy { group in
            group.count <= 4 && group.allSatisfy(\.isHexDigit) || isIPv4(String(group))
        }
        return isHex && groups.count <= 9 && (text.contains("::") || groups.count == 8 || text.contains("."))
    }

    /// `10.0.0.0/8`, `::1`.
    static func range(_ value: Value) -> String? {
        guard let text = value.nonEmptyText() else { return nil }
        let halves = text.split(separator: "/", omittingEmptySubsequences: false)
        let address = String(halves[0])
        let bitsMax = isIPv4(address) ? 32 : isIPv6(address) ? 128 : -1
        let bits = halves.count == 2 ? Units.digits(halves[1]) ?? -1 : bitsMax
        guard bitsMax > 0, halves.count <= 2, (0...bitsMax).contains(bits) else {
            value.problem("\"\(text)\" is not an address or a range like 10.0.0.0/8")
            return nil
        }
        return text
    }

    /// A DNS name or an address.
    static func isHost(_ text: String) -> Bool {
        if isIPv4(text) || isIPv6(text) { return true }
        guard !text.isEmpty, text.utf8.count <= 253 else { return false }
        return text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
            !label.isEmpty && label.utf8.count <= 63 && !label.hasPrefix("-") && !label.hasSuffix("-")
                && label.utf8.allSatisfy {
                    $0 >= 48 && $0 <= 57 || $0 >= 65 && $0 <= 90 || $0 >= 97 && $0 <= 122 || $0 == 45
                        || $0 == 95
                }
        }
    }
}

/// Files that the configuration names.
enum Paths {
    /// The path, when its file can be read.
    static func readable(_ value: Value) -> String? {
        guard let path = value.nonEmptyText() else { return nil }
        if case .failure(let problem) = value.context.files.read(path) {
            value.problem("\(path): \(problem.text)")
            return nil
        }
        return path
    }

    /// The file's text without its last line break, for secrets.
    static func secret(_ value: Value) -> String? {
        guard let path = value.nonEmptyText() else { return nil }
        switch value.context.files.read(path) {
        case .failure(let problem):
            value.problem("\(path): \(problem.text)")
            return nil
        case .success(let bytes):
            var text = String(decoding: bytes, as: UTF8.self)
            while text.hasSuffix("\n") || text.hasSuffix("\r") { text.removeLast() }
            guard !text.isEmpty else {
                value.problem("\(path): the file is empty")
                return nil
            }
            return text
        }
    }
}
