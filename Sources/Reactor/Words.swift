// Eight bytes at a time, for scanners that would otherwise look at each.

extension Span<UInt8> {
    /// The eight bytes from `index` on, the first in the lowest bits.
    @inlinable
    @inline(__always)
    public func word(at index: Int) -> UInt64 {
        precondition(index >= 0 && index <= count &- 8, "a word lies within its span")
        return unsafe bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self).littleEndian
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
