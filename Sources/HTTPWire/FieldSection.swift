/// Reads field lines, the same way for requests, responses and trailers.
enum FieldSection {
    enum Line {
        /// A field line; the next one starts at `next`.
        case field(FieldSlice, next: Int)
        /// The blank line that ends the section; what follows starts at `next`.
        case end(next: Int)
        case incomplete
        case malformed(StaticString)
    }

    /// Reads the line that starts at `start`.
    ///
    /// RFC 9112 section 5: no space before the colon, no line folding, CRLF and nothing else ends a line.
    @inline(__always)
    static func line(_ bytes: Span<UInt8>, _ start: Int, _ end: Int) -> Line {
        guard start < end else { return .incomplete }
        var index = start
        let opening = bytes[index]
        if opening == 0x0D {
            guard index + 1 < end else { return .incomplete }
            return bytes[index + 1] == 0x0A ? .end(next: index + 2) : .malformed("bare CR in the head")
        }
        if opening == 0x20 || opening == 0x09 { return .malformed("folded header line") }
        var isPlain = true
        index = ByteClass.skipPlainName(bytes, index, end)
        while index < end {
            let byte = bytes[index]
            guard ByteClass.isToken(byte) else { break }
            if !ByteClass.isPlainName(byte) { isPlain = false }
            index &+= 1
        }
        guard index < end else { return .incomplete }
        guard bytes[index] == 0x3A else { return .malformed(nameProblem(bytes[index])) }
        guard index > start else { return .malformed("empty header name") }
        let nameCount = index &- start
        index &+= 1
        while index < end, bytes[index] == 0x20 || bytes[index] == 0x09 { index &+= 1 }
        let valueStart = index
        index = ByteClass.endOfFieldValue(bytes, index, end)
        guard index < end else { return .incomplete }
        guard bytes[index] == 0x0D else {
            return .malformed(
                bytes[index] == 0x0A ? "bare LF in the head" : "control character in a header value")
        }
        guard index &+ 1 < end else { return .incomplete }
        guard bytes[index &+ 1] == 0x0A else { return .malformed("bare CR in the head") }
        var valueEnd = index
        while valueEnd > valueStart, bytes[valueEnd &- 1] == 0x20 || bytes[valueEnd &- 1] == 0x09 {
            valueEnd &-= 1
        }
        var slice = FieldSlice()
        slice.nameStart = Int32(truncatingIfNeeded: start)
        slice.nameCount = Int32(truncatingIfNeeded: nameCount)
        slice.valueStart = Int32(truncatingIfNeeded: valueStart)
        slice.valueCount = Int32(truncatingIfNeeded: valueEnd &- valueStart)
        slice.id = FieldID.identify(bytes, start, nameCount, isPlain: isPlain)
        return .field(slice, next: index &+ 2)
    }

    /// The line that starts at `start`, written by this process as `name: value`; nil when it is none.
    ///
    /// - Parameter mayHaveAliases: false where look-alikes of known names need not be told from other names.
    @inline(__always)
    static func written(_ bytes: Span<UInt8>, _ start: Int, mayHaveAliases: Bool = false) -> FieldSlice? {
        let colon = ByteClass.firstPlace(of: 0x3A, in: bytes, from: start)
        let end = ByteClass.firstPlace(of: 0x0D, in: bytes, from: colon)
        guard colon &+ 2 <= end, end &+ 2 <= bytes.count else { return nil }
        var slice = FieldSlice()
        slice.nameStart = Int32(truncatingIfNeeded: start)
        slice.nameCount = Int32(truncatingIfNeeded: colon &- start)
        slice.valueStart = Int32(truncatingIfNeeded: colon &+ 2)
        slice.valueCount = Int32(truncatingIfNeeded: end &- colon &- 2)
        let isPlain = !mayHaveAliases || ByteClass.isPlainName(bytes, start, colon)
        slice.id = FieldID.identify(bytes, start, colon &- start, isPlain: isPlain)
        return slice
    }

    private static func nameProblem(_ byte: UInt8) -> StaticString {
        switch byte {
        case 0x20, 0x09: return "space before the colon of a header"
        case 0x0A: return "bare LF in the head"
        case 0x0D: return "header line without a colon"
        default: return "invalid character in a header name"
        }
    }

    /// A `Content-Length` value: digits only (RFC 9110 section 8.6), at most 18 behind leading zeros, so that
    /// it fits 63 bits.
    static func contentLength(_ bytes: Span<UInt8>, _ value: Range<Int>) -> Int64? {
        guard !value.isEmpty else { return nil }
        var length: Int64 = 0
        for index in value {
            guard ByteClass.isDigit(bytes[index]), length < 100_000_000_000_000_000 else { return nil }
            length = length &* 10 &+ Int64(bytes[index] &- 48)
        }
        return length
    }

    /// Whether a `Transfer-Encoding` value is exactly `chunked`.
    static func isChunked(_ bytes: Span<UInt8>, _ value: Range<Int>) -> Bool {
        bytes.isToken(value, 7, 0x63_6875_6E6B_6564)
    }
}
