package import Reactor

/// What a server proves its agreement to a WebSocket with (RFC 6455 section 4.2.2). Upstreams of HTTP/2 agree
/// without (RFC 8441 section 5); callers of HTTP/1.1 insist on it.
package enum WebSocketAccept {
    /// Bytes of a proof: 20 as base64.
    package static let bytes = 28
    private static let suffix: StaticString = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

    /// Writes the proof for a caller's key of at most 128 bytes.
    package static func write(_ key: Span<UInt8>, into writer: inout ByteWriter) {
        var hash = SHA1()
        for index in 0..<min(key.count, 128) { hash.add(key[index]) }
        for index in 0..<suffix.utf8CodeUnitCount { unsafe hash.add(suffix.utf8Start[index]) }
        let digest = hash.finish()
        Base64.write(20, into: &writer) {
            UInt8(truncatingIfNeeded: digest[$0 >> 2] >> UInt32(24 - 8 * ($0 & 3)))
        }
    }

    /// Whether a value proves agreement with a key.
    ///
    /// - Parameter scratch: an empty block with room for a proof.
    package static func isProof(
        _ value: Span<UInt8>, of key: Span<UInt8>, scratch: inout Block
    ) -> Bool {
        guard !key.isEmpty, value.count == bytes else { return false }
        var writer = ByteWriter(scratch)
        write(key, into: &writer)
        scratch.commit(writer)
        for index in 0..<bytes where scratch.readable[index] != value[index] { return false }
        return true
    }
}

/// SHA-1 (RFC 3174), for the proof above alone: it protects nothing there.
private struct SHA1 {
    private var state: InlineArray<5, UInt32> = [
        0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0,
    ]
    private var words = InlineArray<16, UInt32>(repeating: 0)
    private var count: UInt64 = 0

    mutating func add(_ byte: UInt8) {
        let index = Int(count & 63)
        words[index >> 2] = words[index >> 2] << 8 | UInt32(byte)
        count += 1
        if index == 63 { mix() }
    }

    mutating func finish() -> InlineArray<5, UInt32> {
        let bits = count * 8
        add(0x80)
        while count & 63 != 56 { add(0) }
        for shift in stride(from: UInt64(56), through: 0, by: -8) { add(UInt8(bits >> shift & 255)) }
        return state
    }

    private mutating func mix() {
        var w = words
        var (a, b, c, d, e) = (state[0], state[1], state[2], state[3], state[4])
        for round in 0..<80 {
            if round >= 16 {
                let mixed =
                    w[(round - 3) & 15] ^ w[(round - 8) & 15] ^ w[(round - 14) & 15] ^ w[round & 15]
                w[round & 15] = mixed << 1 | mixed >> 31
            }
            let (f, k): (UInt32, UInt32)
            switch round {
            case 0..<20: (f, k) = (b & c | ~b & d, 0x5A82_7999)
            case 20..<40: (f, k) = (b ^ c ^ d, 0x6ED9_EBA1)
            case 40..<60: (f, k) = (b & c | b & d | c & d, 0x8F1B_BCDC)
            default: (f, k) = (b ^ c ^ d, 0xCA62_C1D6)
            }
            let next = (a << 5 | a >> 27) &+ f &+ e &+ k &+ w[round & 15]
            (e, d, c, b, a) = (d, c, b << 30 | b >> 2, a, next)
        }
        state[0] &+= a
        state[1] &+= b
        state[2] &+= c
        state[3] &+= d
        state[4] &+= e
        words = InlineArray(repeating: 0)
    }
}

/// Bytes as base64 (RFC 4648 section 4).
enum Base64 {
    static func write(_ count: Int, into writer: inout ByteWriter, byte: (Int) -> UInt8) {
        for start in stride(from: 0, to: count, by: 3) {
            var bits: UInt32 = 0
            for index in start..<start + 3 { bits = bits << 8 | (index < count ? UInt32(byte(index)) : 0) }
            let digits = min(count - start, 3) + 1
            for digit in 0..<4 {
                writer.append(byte: digit < digits ? character(bits >> UInt32(18 - 6 * digit)) : 0x3D)
            }
        }
    }

    private static func character(_ value: UInt32) -> UInt8 {
        let digit = UInt8(truncatingIfNeeded: value & 63)
        switch digit {
        case 0..<26: return digit + 65
        case 26..<52: return digit + 71
        case 52..<62: return digit - 4
        case 62: return 0x2B
        default: return 0x2F
        }
    }
}
