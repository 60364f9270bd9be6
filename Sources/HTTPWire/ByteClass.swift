/// Which bytes may stand where, as 128-bit masks: a test is a shift and an AND, without a table in memory.
enum ByteClass {
    /// `tchar` of RFC 9110 section 5.6.2.
    @inline(__always)
    static func isToken(_ byte: UInt8) -> Bool {
        test(byte, 0x03FF_6CFA_0000_0000, 0x57FF_FFFF_C7FF_FFFE)
    }

    /// `unreserved` of RFC 3986 section 2.3; also the only bytes that a host name may have here.
    @inline(__always)
    static func isUnreserved(_ byte: UInt8) -> Bool {
        test(byte, 0x03FF_6000_0000_0000, 0x47FF_FFFE_87FF_FFFE)
    }

    /// Bytes of a path. RFC 3986 section 3.3, and `[ ] ^ { | }`, which browsers send as they are. No
    /// backslash: some servers read it as a slash.
    @inline(__always)
    static func isPath(_ byte: UInt8) -> Bool {
        test(byte, 0x2FFF_FFF2_0000_0000, 0x7FFF_FFFE_EFFF_FFFF)
    }

    /// Bytes of a query, as lenient as browsers are.
    @inline(__always)
    static func isQuery(_ byte: UInt8) -> Bool {
        test(byte, 0xAFFF_FFF2_0000_0000, 0x7FFF_FFFE_FFFF_FFFF)
    }

    /// `token68` of RFC 9110 section 11.2, without its trailing `=`.
    @inline(__always)
    static func isToken68(_ byte: UInt8) -> Bool {
        test(byte, 0x03FF_E800_0000_0000, 0x47FF_FFFE_87FF_FFFE)
    }

    /// Bytes of a field value: `VCHAR`, `obs-text`, SP and HTAB (RFC 9110 section 5.5).
    @inline(__always)
    static func isFieldValue(_ byte: UInt8) -> Bool {
        byte >= 0x20 && byte != 0x7F || byte == 0x09
    }

    @inline(__always)
    static func isDigit(_ byte: UInt8) -> Bool { byte &- 48 < 10 }

    /// The value of a hexadecimal digit, or nil.
    @inline(__always)
    static func hexadecimal(_ byte: UInt8) -> UInt8? {
        if byte &- 48 < 10 { return byte &- 48 }
        let lower = byte | 0x20
        return lower >= 97 && lower <= 102 ? lower &- 87 : nil
    }

    @inline(__always)
    private static func test(_ byte: UInt8, _ low: UInt64, _ high: UInt64) -> Bool {
        let mask = byte < 64 ? low : high
        return byte < 128 && (mask >> UInt64(byte & 63)) & 1 == 1
    }
}

extension Span<UInt8> {
    /// A part of at most 24 bytes, with ASCII letters in lower case, packed big-endian into words of eight
    /// bytes each. Comparing names is then comparing integers, exact for names of letters, digits and `-`:
    /// among `tchar`, setting bit 5 maps no other byte onto those.
    @inline(__always)
    func packedLowercase(_ start: Int, _ count: Int) -> (first: UInt64, second: UInt64, third: UInt64) {
        var words: (first: UInt64, second: UInt64, third: UInt64) = (0, 0, 0)
        var index = 0
        while index < count {
            let byte = UInt64(self[start &+ index] | 0x20)
            if index < 8 {
                words.first = words.first << 8 | byte
            } else if index < 16 {
                words.second = words.second << 8 | byte
            } else {
                words.third = words.third << 8 | byte
            }
            index &+= 1
        }
        return words
    }

    /// Whether a part is the token whose packed form is given; `count` is the token's length, at most 16.
    @inline(__always)
    func isToken(_ range: Range<Int>, _ count: Int, _ first: UInt64, _ second: UInt64 = 0) -> Bool {
        guard range.count == count else { return false }
        let words = packedLowercase(range.lowerBound, count)
        return words.first == first && words.second == second
    }
}
