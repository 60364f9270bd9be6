// Eight bytes at a time, for scanners that would otherwise look at each.

extension Span<UInt8> {
    /// The eight bytes from `index` on, the first in the lowest bits.
    @inlinable
    @inline(__always)
    public func word(at index: Int) -> UInt64 {
        precondition(index >= 0 && index <= count &- 8, "a word lies within its span")
        return unsafe bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self).littleEndian
    }

    /// Whether a byte is among them.
    public func contains(_ byte: UInt8) -> Bool {
        let pattern = UInt64(byte) &* 0x0101_0101_0101_0101
        var index = 0
        while index &+ 8 <= count {
            let word = word(at: index) ^ pattern
            if (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080 != 0 { return true }
            index &+= 8
        }
        while index < count {
            if self[index] == byte { return true }
            index &+= 1
        }
        return false
    }

    /// Whether the bytes begin with this text.
    @inlinable
    public func hasPrefix(_ text: StaticString) -> Bool {
        count >= text.utf8CodeUnitCount && extracting(0..<text.utf8CodeUnitCount).equals(text)
    }

    /// Whether the bytes are this text, in any case of its letters.
    ///
    /// - Parameter text: in lower case; letters, digits and `-` only.
    @inlinable
    public func equalsIgnoringCase(_ text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        for index in 0..<count where unsafe self[index] | 0x20 != text.utf8Start[index] | 0x20 {
            return false
        }
        return true
    }

    /// Whether the bytes are exactly this text.
    @inlinable
    public func equals(_ text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        for index in 0..<count where unsafe self[index] != text.utf8Start[index] { return false }
        return true
    }
}

extension UInt64 {
    /// The word with every ASCII capital in it in lower case (Warren, Hacker's Delight, section 6-1: sums of
    /// seven bits and seven bits stay within their byte).
    @inline(__always)
    var lowercasedASCII: UInt64 {
        let low = self & 0x7F7F_7F7F_7F7F_7F7F
        let isAtLeastA = low &+ 0x3F3F_3F3F_3F3F_3F3F
        let isAboveZ = low &+ 0x2525_2525_2525_2525
        return self | ((isAtLeastA ^ isAboveZ) & ~self & 0x8080_8080_8080_8080) >> 2
    }
}

extension Block {
    /// Appends eight bytes, the lowest first; nothing when they do not fit.
    @inlinable
    public mutating func append(word: UInt64) {
        guard freeCount >= 8, let base = unsafe base else { return }
        unsafe UnsafeMutableRawPointer(base + end).storeBytes(of: word.littleEndian, as: UInt64.self)
        end &+= 8
    }

    /// Appends text with its ASCII capitals in lower case; nothing when it does not fit.
    public mutating func append(lowercasing text: Span<UInt8>) {
        guard text.count <= freeCount, let base = unsafe base else { return }
        let target = unsafe UnsafeMutableRawPointer(base + end)
        var index = 0
        while index &+ 8 <= text.count {
            let word = text.word(at: index).lowercasedASCII.littleEndian
            unsafe target.storeBytes(of: word, toByteOffset: index, as: UInt64.self)
            index &+= 8
        }
        if index < text.count, text.count >= 8 {
            // The last word overlaps the one before.
            index = text.count &- 8
            let word = text.word(at: index).lowercasedASCII.littleEndian
            unsafe target.storeBytes(of: word, toByteOffset: index, as: UInt64.self)
            index = text.count
        }
        while index < text.count {
            let byte = text[index]
            let lower = byte &- 65 < 26 ? byte | 0x20 : byte
            unsafe target.storeBytes(of: lower, toByteOffset: index, as: UInt8.self)
            index &+= 1
        }
        end &+= text.count
    }
}
