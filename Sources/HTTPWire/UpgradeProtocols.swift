import Reactor

/// The protocols of an `Upgrade` field (RFC 9110 section 7.8).
enum UpgradeProtocols {
    /// Whether all of them may become a tunnel. HTTP/2 in clear and TLS may not: requests inside would reach
    /// the upstream unseen, with an identity that nobody has checked.
    static func mayBeTunnelled(_ bytes: Span<UInt8>, _ value: Range<Int>) -> Bool {
        var index = value.lowerBound
        var count = 0
        while index < value.upperBound {
            let item = ConnectionOptions.nextItem(&index, value.upperBound, bytes)
            if item.isEmpty { continue }
            count += 1
            guard isToken(bytes, item), !names(bytes, item, "h2c"), !names(bytes, item, "h2"),
                !names(bytes, item, "http"), !names(bytes, item, "tls")
            else { return false }
        }
        return count > 0
    }

    /// `protocol-name [ "/" protocol-version ]`
    private static func isToken(_ bytes: Span<UInt8>, _ item: Range<Int>) -> Bool {
        for index in item where !ByteClass.isToken(bytes[index]) && bytes[index] != 0x2F { return false }
        return true
    }

    /// Whether an item is a protocol of this name, of any version.
    private static func names(_ bytes: Span<UInt8>, _ item: Range<Int>, _ name: StaticString) -> Bool {
        let count = name.utf8CodeUnitCount
        guard item.count >= count, item.count == count || bytes[item.lowerBound + count] == 0x2F else {
            return false
        }
        return bytes.extracting(item.lowerBound..<item.lowerBound + count).equalsIgnoringCase(name)
    }
}
