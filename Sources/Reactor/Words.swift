// Eight bytes at a time, for scanners that would otherwise look at each.

extension Span<UInt8> {
    /// The eight bytes from `index` on, the first in the lowest bits.
    @inlinable
    @inline(__always)
    public func word(at index: Int) -> UInt64 {
        precondition(index >= 0 && index <= count &- 8, "a word lies within its span")
        return unsafe bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self).littleEndian
    }
}
