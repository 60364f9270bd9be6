import Glibc

/// An IP address with a port, or nothing: plain data that fits in a slot.
///
/// IPv4 is kept as IPv4-mapped IPv6, so one comparison serves both families.
public struct SocketAddress: Hashable, Sendable, CustomStringConvertible {
    /// Bytes 0 to 7 of the address, big-endian.
    public var high: UInt64
    /// Bytes 8 to 15 of the address, big-endian.
    public var low: UInt64
    public var port: UInt16
    /// Interface of a link-local IPv6 address.
    public var scope: UInt32
    public var isIPv4: Bool

    public init(ipv4 address: UInt32, port: UInt16) {
        high = 0
        low = 0xFFFF_0000_0000 | UInt64(address)
        self.port = port
        scope = 0
        isIPv4 = true
    }

    public init(ipv6High: UInt64, low: UInt64, port: UInt16, scope: UInt32 = 0) {
        high = ipv6High
        self.low = low
        self.port = port
        self.scope = scope
        isIPv4 = false
    }

    /// The address of a peer without one, like that of a Unix socket.
    public static let unspecified = SocketAddress(ipv4: 0, port: 0)

    /// Reads `127.0.0.1:80`, `[::1]:80` or `:80` (every IPv6 and IPv4 interface). Names are not resolved.
    public static func parse(_ text: String) -> SocketAddress? {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        let portText = text[text.index(after: colon)...]
        guard let port = UInt16(portText), portText.utf8.allSatisfy({ $0 >= 48 && $0 <= 57 }) else {
            return nil
        }
        var host = String(text[..<colon])
        if host.isEmpty { return SocketAddress(ipv6High: 0, low: 0, port: port) }
        if host.hasPrefix("[") {
            guard host.hasSuffix("]"), host.count > 2 else { return nil }
            host = String(host.dropFirst().dropLast())
            guard host.contains(":") else { return nil }
        } else if host.contains(":") {
            return nil
        }
        return SocketAddress(ip: host, port: port)
    }

    /// Reads an address without port, without brackets.
    public init?(ip text: String, port: UInt16) {
        var four = in_addr()
        if unsafe inet_pton(AF_INET, text, &four) == 1 {
            self.init(ipv4: UInt32(bigEndian: four.s_addr), port: port)
            return
        }
        var six = in6_addr()
        guard unsafe inet_pton(AF_INET6, text, &six) == 1 else { return nil }
        let words = unsafe withUnsafeBytes(of: &six) { bytes in
            unsafe (
                bytes.loadUnaligned(as: UInt64.self), bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
            )
        }
        self.init(
            ipv6High: UInt64(bigEndian: words.0), low: UInt64(bigEndian: words.1), port: port)
    }

    public var isMappedIPv4: Bool { high == 0 && low >> 32 == 0xFFFF }

    /// What failed authentications are counted by: an IPv4 address whole, an IPv6 address by its /64.
    public var rateLimitPrefix: (UInt64, UInt64) {
        isMappedIPv4 ? (0, low) : (high, 0)
    }

    /// The address without its port, as text.
    public var ipText: String {
        var block = Block.allocate(capacity: 64)
        defer { block.deallocate() }
        var writer = ByteWriter(block)
        write(ipInto: &writer)
        return unsafe writer.written.withUnsafeBufferPointer { bytes in
            unsafe String(decoding: bytes, as: UTF8.self)
        }
    }

    public var description: String {
        isMappedIPv4 ? "\(ipText):\(port)" : "[\(ipText)]:\(port)"
    }

    /// Writes the address without port and brackets (RFC 5952 for IPv6), allocating nothing.
    public func write(ipInto writer: inout ByteWriter) {
        if isMappedIPv4 {
            writer.append(octets: low & 0xFFFF_FFFF)
            return
        }
        writeIPv6(into: &writer)
    }

    private func group(_ index: Int) -> UInt64 {
        let word = index < 4 ? high : low
        return (word >> UInt64(48 - (index & 3) * 16)) & 0xFFFF
    }

    private func writeIPv6(into writer: inout ByteWriter) {
        var bestStart = -1
        var bestCount = 1
        var start = 0
        while start < 8 {
            var length = 0
            while start + length < 8 && group(start + length) == 0 { length += 1 }
            if length > bestCount {
                bestStart = start
                bestCount = length
            }
            start += max(1, length)
        }
        var index = 0
        while index < 8 {
            if index == bestStart {
                writer.append("::")
                index += bestCount
                continue
            }
            if index > 0 && index != bestStart + bestCount || (index > 0 && bestStart < 0) {
                writer.append(byte: 58)
            }
            writer.append(hexadecimal: group(index))
            index += 1
        }
    }
}

/// A range of addresses like `10.0.0.0/8` or `fd00::/8`.
public struct AddressRange: Sendable, Equatable {
    public let address: SocketAddress
    /// Leading bits that must agree, 0 to 128 (IPv4 counts from 96).
    public let prefixBits: Int

    /// Reads `address/bits`, or a lone address.
    public static func parse(_ text: String) -> AddressRange? {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let address = SocketAddress(ip: String(parts[0]), port: 0) else { return nil }
        let width = address.isIPv4 ? 32 : 128
        guard parts.count == 2 else { return AddressRange(address: address, prefixBits: 128) }
        guard let bits = Int(parts[1]), (0...width).contains(bits) else { return nil }
        return AddressRange(address: address, prefixBits: address.isIPv4 ? 96 + bits : bits)
    }

    public func contains(_ other: SocketAddress) -> Bool {
        if address.isMappedIPv4 != other.isMappedIPv4 { return false }
        let highBits = min(64, prefixBits)
        let lowBits = max(0, prefixBits - 64)
        let highMask = highBits == 0 ? 0 : UInt64.max << UInt64(64 - highBits)
        let lowMask = lowBits == 0 ? 0 : UInt64.max << UInt64(64 - lowBits)
        return (address.high ^ other.high) & highMask == 0 && (address.low ^ other.low) & lowMask == 0
    }
}
