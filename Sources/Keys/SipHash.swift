// SipHash-2-4 with 128 bits of output: the name under which a worker knows a credential.
//
// A plain hash table key would have to keep the secret to compare it, or let a caller craft collisions. A
// keyed pseudo-random function under a key that never leaves the process does neither, and leaks nothing
// through timing: what is compared is the function's output. SHA-256 is computed only when this table does
// not know the credential.

/// The random key of one process (16 bytes from the operating system).
package struct SipKey: Sendable {
    /// The first eight bytes, little-endian.
    let first: UInt64
    /// The last eight bytes, little-endian.
    let second: UInt64

    /// Both halves must come from a cryptographic random source.
    package init(_ first: UInt64, _ second: UInt64) {
        self.first = first
        self.second = second
    }
}

/// 128 pseudo-random bits that stand for a byte string under one `SipKey`.
package struct Fingerprint: Hashable, Sendable, BitwiseCopyable {
    /// The first eight bytes of the output, little-endian.
    package let low: UInt64
    /// The last eight bytes of the output, little-endian.
    package let high: UInt64

    @inlinable
    package init(low: UInt64, high: UInt64) {
        self.low = low
        self.high = high
    }

    /// The form that `Limits` takes for accounts.
    @inlinable
    package var words: (UInt64, UInt64) { (low, high) }
}

extension SipKey {
    /// SipHash-2-4-128 of `bytes` (Aumasson and Bernstein, 2012; the 128-bit variant of the reference code).
    package func hash(_ bytes: Span<UInt8>) -> Fingerprint {
        var state = SipState(self)
        let count = bytes.count
        let wholeWords = count & ~7
        var offset = 0
        while offset < wholeWords {
            state.absorb(littleEndianWord(bytes, at: offset))
            offset &+= 8  // offset < wholeWords <= count
        }
        // The last word holds what is left and, in its top byte, the length modulo 256.
        var last = UInt64(truncatingIfNeeded: count) << 56
        var shift: UInt64 = 0
        while offset < count {
            last |= UInt64(bytes[offset]) << shift
            shift &+= 8
            offset &+= 1
        }
        state.absorb(last)
        return state.finish()
    }
}

/// The four words of SipHash's state.
private struct SipState {
    private var v0: UInt64, v1: UInt64, v2: UInt64, v3: UInt64

    init(_ key: SipKey) {
        v0 = 0x736f_6d65_7073_6575 ^ key.first
        v1 = 0x646f_7261_6e64_6f6d ^ key.second ^ 0xee  // 0xee selects the 128-bit variant
        v2 = 0x6c79_6765_6e65_7261 ^ key.first
        v3 = 0x7465_6462_7974_6573 ^ key.second
    }

    @inline(__always)
    mutating func absorb(_ word: UInt64) {
        v3 ^= word
        round()
        round()
        v0 ^= word
    }

    mutating func finish() -> Fingerprint {
        v2 ^= 0xee
        for _ in 0..<4 { round() }
        let low = v0 ^ v1 ^ v2 ^ v3
        v1 ^= 0xdd
        for _ in 0..<4 { round() }
        return Fingerprint(low: low, high: v0 ^ v1 ^ v2 ^ v3)
    }

    @inline(__always)
    private mutating func round() {
        v0 = v0 &+ v1
        v1 = rotated(v1, 13) ^ v0
        v0 = rotated(v0, 32)
        v2 = v2 &+ v3
        v3 = rotated(v3, 16) ^ v2
        v0 = v0 &+ v3
        v3 = rotated(v3, 21) ^ v0
        v2 = v2 &+ v1
        v1 = rotated(v1, 17) ^ v2
        v2 = rotated(v2, 32)
    }

    @inline(__always)
    private func rotated(_ word: UInt64, _ bits: UInt64) -> UInt64 {
        (word &<< bits) | (word &>> (64 &- bits))
    }
}
