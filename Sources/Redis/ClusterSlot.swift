/// The place of a name in a Redis cluster: CRC16 (XMODEM) of the name, or of what stands between its first
/// `{` and the next `}`, modulo 16,384 (Redis cluster specification, "Key distribution model").
package enum ClusterSlot {
    /// How many slots a cluster has.
    package static let count = 16_384
    /// What stands for no lane or no master in a table of owners.
    package static let nobody: UInt8 = 255

    private static let table: [UInt16] = (0..<256).map { byte in
        var crc = UInt16(byte) << 8
        for _ in 0..<8 { crc = crc & 0x8000 != 0 ? crc << 1 ^ 0x1021 : crc << 1 }
        return crc
    }

    /// The slot of a hash tag, or of a name without one.
    package static func of(_ bytes: Span<UInt8>) -> UInt16 {
        var crc: UInt16 = 0
        for index in 0..<bytes.count {
            crc = crc << 8 ^ table[Int(UInt8(truncatingIfNeeded: crc >> 8) ^ bytes[index])]
        }
        return crc % UInt16(count)
    }

    /// The slot of a name that may have a hash tag.
    package static func of(name: [UInt8]) -> UInt16 {
        if let open = name.firstIndex(of: 0x7B),
            let close = name[(open + 1)...].firstIndex(of: 0x7D), close > open + 1
        {
            return of(name.span.extracting((open + 1)..<close))
        }
        return of(name.span)
    }
}
