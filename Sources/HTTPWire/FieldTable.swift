import Reactor

/// What stands before the text of a head that has come by HTTP/2: for each field line behind the request line
/// its identity and its lengths, which whoever writes the text knows already.
///
/// A table is a word with the number of its entries, then a word for each, in the order of the lines.
package enum FieldTable {
    static let headerBytes = 8
    static let entryBytes = 8

    /// Bytes of a table with so many entries.
    package static func byteCount(entries: Int) -> Int { headerBytes + entryBytes * entries }

    /// An entry for `name: value`.
    ///
    /// - Parameters:
    ///   - nameCount: bytes, below 16 million.
    ///   - valueCount: bytes, below 2 thousand million.
    @inline(__always)
    package static func entry(_ id: FieldID, nameCount: Int, valueCount: Int) -> UInt64 {
        UInt64(id.rawValue) | UInt64(nameCount) << 8 | UInt64(valueCount) << 32
    }

    /// Where the text begins.
    package static func end(_ bytes: Span<UInt8>) -> Int {
        let count = bytes.word(at: 0)
        precondition(count <= UInt64(bytes.count / entryBytes), "a table lies before its text")
        return headerBytes &+ entryBytes &* Int(count)
    }

    /// The line at `start` that an entry tells of.
    @inline(__always)
    static func slice(_ entry: UInt64, at start: Int) -> FieldSlice {
        let nameCount = Int32(truncatingIfNeeded: entry >> 8 & 0xFF_FFFF)
        var slice = FieldSlice()
        slice.nameStart = Int32(truncatingIfNeeded: start)
        slice.nameCount = nameCount
        slice.valueStart = slice.nameStart &+ nameCount &+ 2
        slice.valueCount = Int32(truncatingIfNeeded: entry >> 32)
        slice.id = FieldID(rawValue: UInt8(truncatingIfNeeded: entry)) ?? .other
        return slice
    }
}
