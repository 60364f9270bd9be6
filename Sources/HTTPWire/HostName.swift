/// `uri-host [ ":" port ]` (RFC 9110 section 7.2), as RFC 3986 section 3.2 has its parts.
///
/// User information is none of them. Of percent-encoded bytes only those are taken that no reader could take
/// for a delimiter, and an address in brackets must be one.
package enum HostName {
    package static func isValid(_ bytes: Span<UInt8>, _ host: Range<Int>) -> Bool {
        var index = host.lowerBound
        guard index < host.upperBound else { return false }
        if bytes[index] == 0x5B {
            index += 1
            let start = index
            while index < host.upperBound, bytes[index] != 0x5D { index += 1 }
            guard index < host.upperBound, isAddress(bytes, start..<index) else { return false }
            index += 1
        } else {
            while index < host.upperBound {
                if ByteClass.isHostName(bytes[index]) {
                    index += 1
                } else if isHarmlessEscape(bytes, index, host.upperBound) {
                    index += 3
                } else {
                    break
                }
            }
            guard index > host.lowerBound else { return false }
        }
        return index == host.upperBound || isPort(bytes, index..<host.upperBound)
    }

    /// `:` and digits, of which there may be none; no more than 65535.
    private static func isPort(_ bytes: Span<UInt8>, _ part: Range<Int>) -> Bool {
        guard bytes[part.lowerBound] == 0x3A else { return false }
        var port = 0
        var index = part.lowerBound &+ 1
        while index < part.upperBound {
            guard ByteClass.isDigit(bytes[index]), port <= 65_535 else { return false }
            port = port &* 10 &+ Int(bytes[index] &- 48)
            index &+= 1
        }
        return port <= 65_535
    }

    /// `%` and two digits that stand for a letter, a digit, a mark that a name may have, or a byte of UTF-8.
    private static func isHarmlessEscape(_ bytes: Span<UInt8>, _ index: Int, _ end: Int) -> Bool {
        guard bytes[index] == 0x25, index + 2 < end, let high = ByteClass.hexadecimal(bytes[index + 1]),
            let low = ByteClass.hexadecimal(bytes[index + 2])
        else { return false }
        let byte = high << 4 | low
        return byte >= 0x80 || ByteClass.isHostName(byte)
    }

    /// What may stand in brackets: `IPv6address` or `IPvFuture` (RFC 3986 section 3.2.2).
    private static func isAddress(_ bytes: Span<UInt8>, _ part: Range<Int>) -> Bool {
        guard let first = part.first else { return false }
        if bytes[first] | 0x20 == 0x76 { return isFutureAddress(bytes, part.dropFirst()) }
        var groups = 0
        var hasGap = false
        var index = part.lowerBound
        while index < part.upperBound {
            if bytes[index] == 0x3A {
                // A single colon stands between two groups, a double one once.
                let isDouble = index + 1 < part.upperBound && bytes[index + 1] == 0x3A
                if isDouble {
                    guard !hasGap else { return false }
                    hasGap = true
                    index += 2
                    continue
                }
                guard groups > 0, index + 1 < part.upperBound, bytes[index - 1] != 0x3A else { return false }
                index += 1
            }
            let start = index
            while index < part.upperBound, ByteClass.hexadecimal(bytes[index]) != nil { index += 1 }
            if index < part.upperBound, bytes[index] == 0x2E {
                guard isFourNumbers(bytes, start..<part.upperBound) else { return false }
                groups += 2
                break
            }
            guard index > start, index - start <= 4 else { return false }
            guard index == part.upperBound || bytes[index] == 0x3A else { return false }
            groups += 1
        }
        return hasGap ? groups <= 7 : groups == 8
    }

    /// `1*HEXDIG "." 1*( unreserved / sub-delims / ":" )`, behind the `v`.
    private static func isFutureAddress(_ bytes: Span<UInt8>, _ part: Range<Int>) -> Bool {
        var index = part.lowerBound
        while index < part.upperBound, ByteClass.hexadecimal(bytes[index]) != nil { index += 1 }
        guard index > part.lowerBound, index + 1 < part.upperBound, bytes[index] == 0x2E else { return false }
        for rest in index + 1..<part.upperBound {
            guard ByteClass.isHostName(bytes[rest]) || bytes[rest] == 0x3A else { return false }
        }
        return true
    }

    /// `IPv4address`: four numbers below 256 without leading zeros.
    private static func isFourNumbers(_ bytes: Span<UInt8>, _ part: Range<Int>) -> Bool {
        var numbers = 0
        var index = part.lowerBound
        while numbers < 4 {
            let start = index
            var value = 0
            while index < part.upperBound, index - start < 3, ByteClass.isDigit(bytes[index]) {
                value = value * 10 + Int(bytes[index] - 48)
                index += 1
            }
            guard index > start, value < 256, index - start == 1 || bytes[start] != 0x30 else { return false }
            numbers += 1
            if numbers < 4 {
                guard index < part.upperBound, bytes[index] == 0x2E else { return false }
                index += 1
            }
        }
        return index == part.upperBound
    }

    /// The host without its port.
    package static func withoutPort(_ bytes: Span<UInt8>, _ host: Range<Int>) -> Range<Int> {
        var end = host.upperBound
        while end > host.lowerBound, ByteClass.isDigit(bytes[end - 1]) { end -= 1 }
        return end > host.lowerBound && bytes[end - 1] == 0x3A ? host.lowerBound..<end - 1 : host
    }

    /// Whether two authorities are the same: letters in any case, and a port that is left out or empty is
    /// the scheme's (RFC 9110 section 4.2.3).
    package static func areSame(
        _ bytes: Span<UInt8>, _ one: Range<Int>, _ other: Range<Int>, defaultPort: Int
    ) -> Bool {
        let oneName = withoutPort(bytes, one)
        let otherName = withoutPort(bytes, other)
        guard oneName.count == otherName.count,
            port(bytes, oneName.upperBound..<one.upperBound, defaultPort)
                == port(bytes, otherName.upperBound..<other.upperBound, defaultPort)
        else { return false }
        for offset in 0..<oneName.count {
            let a = bytes[oneName.lowerBound + offset]
            let b = bytes[otherName.lowerBound + offset]
            guard a == b || (a | 0x20 == b | 0x20 && (a | 0x20) &- 97 < 26) else { return false }
        }
        return true
    }

    /// The number behind the colon.
    private static func port(_ bytes: Span<UInt8>, _ part: Range<Int>, _ defaultPort: Int) -> Int {
        guard part.count > 1 else { return defaultPort }
        var port = 0
        for index in part.dropFirst() { port = min(65_536, port * 10 + Int(bytes[index] &- 48)) }
        return port
    }
}
