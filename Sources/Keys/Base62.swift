/// The digits `0-9`, `A-Z`, `a-z`, in this order.
package enum Base62 {
    /// The digit for a value of 0 to 61.
    package static func character(_ value: UInt8) -> UInt8 {
        precondition(value < 62, "a base62 digit is below 62")
        return switch value {
        case ..<10: UInt8(ascii: "0") + value
        case ..<36: UInt8(ascii: "A") - 10 + value
        default: UInt8(ascii: "a") - 36 + value
        }
    }

    /// The value of a digit, `nil` for any other byte.
    @inline(__always)
    static func value(of byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): byte - UInt8(ascii: "A") + 10
        case UInt8(ascii: "a")...UInt8(ascii: "z"): byte - UInt8(ascii: "a") + 36
        default: nil
        }
    }

    /// A uniformly distributed digit from a uniformly distributed byte, or `nil` (8 of 256 bytes) to draw
    /// again: taking every byte modulo 62 would favour the first eight digits.
    static func character(fromRandom byte: UInt8) -> UInt8? {
        byte < 248 ? character(byte % 62) : nil
    }

    /// `checksum` as six digits, most significant first, zero-padded.
    static func digits(ofChecksum checksum: UInt32) -> InlineArray<6, UInt8> {
        var digits = InlineArray<6, UInt8>(repeating: 0)
        var rest = checksum
        for index in digits.indices.reversed() {
            digits[index] = character(UInt8(truncatingIfNeeded: rest % 62))
            rest /= 62
        }
        return digits
    }
}

/// CRC-32 as in zlib, PNG and Ethernet (polynomial 0x04C11DB7, reflected).
package enum CRC32 {
    /// One step for each value of four bits: small enough to be a constant, fast enough for forty bytes.
    private static let steps: InlineArray<16, UInt32> = [
        0x0000_0000, 0x1db7_1064, 0x3b6e_20c8, 0x26d9_30ac, 0x76dc_4190, 0x6b6b_51f4, 0x4db2_6158,
        0x5005_713c,
        0xedb8_8320, 0xf00f_9344, 0xd6d6_a3e8, 0xcb61_b38c, 0x9b64_c2b0, 0x86d3_d2d4, 0xa00a_e278,
        0xbdbd_f21c,
    ]

    /// The checksum of `bytes`.
    package static func checksum(_ bytes: Span<UInt8>) -> UInt32 {
        var remainder: UInt32 = .max
        for index in bytes.indices {
            remainder ^= UInt32(bytes[index])
            remainder = remainder >> 4 ^ steps[Int(remainder & 15)]
            remainder = remainder >> 4 ^ steps[Int(remainder & 15)]
        }
        return ~remainder
    }
}
