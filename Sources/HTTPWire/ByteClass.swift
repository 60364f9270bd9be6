import Reactor

/// Which bytes may stand where, as 128-bit masks: a test is a shift and an AND, without a table in memory.
enum ByteClass {
    /// `HTTP/1.1` as a word, which nearly every message says.
    static let version11: UInt64 = 0x312E_312F_5054_5448

    /// `tchar` of RFC 9110 section 5.6.2.
    @inline(__always)
    static func isToken(_ byte: UInt8) -> Bool {
        test(byte, 0x03FF_6CFA_0000_0000, 0x57FF_FFFF_C7FF_FFFE)
    }

    /// Letters, digits and `-`, of which nearly every name consists.
    @inline(__always)
    static func isPlainName(_ byte: UInt8) -> Bool {
        test(byte, 0x03FF_2000_0000_0000, 0x07FF_FFFE_07FF_FFFE)
    }

    /// `unreserved` of RFC 3986 section 2.3.
    @inline(__always)
    static func isUnreserved(_ byte: UInt8) -> Bool {
        test(byte, 0x03FF_6000_0000_0000, 0x47FF_FFFE_87FF_FFFE)
    }

    /// `unreserved` and `sub-delims` of RFC 3986 section 2, what a registered name consists of, but no comma:
    /// two `Host` lines that somebody has joined have one, and lists of hosts would be read at it.
    @inline(__always)
    static func isHostName(_ byte: UInt8) -> Bool {
        test(byte, 0x2BFF_6FD2_0000_0000, 0x47FF_FFFE_87FF_FFFE)
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

    /// Per byte the highest bit: below 0x20, or 0x7F. The lowest bit set is exact; those above it may be
    /// carried over (Warren, Hacker's Delight, section 6-1).
    @inline(__always)
    static func controls(_ word: UInt64) -> UInt64 {
        let isDelete = word ^ 0x7F7F_7F7F_7F7F_7F7F
        return ((word &- 0x2020_2020_2020_2020) & ~word | (isDelete &- 0x0101_0101_0101_0101) & ~isDelete)
            & 0x8080_8080_8080_8080
    }

    /// The same for bytes up to the space.
    @inline(__always)
    static func blanks(_ word: UInt64) -> UInt64 {
        (word &- 0x2121_2121_2121_2121) & ~word & 0x8080_8080_8080_8080
    }

    /// Whether all bytes of a word are small letters, digits and `-`.
    @inline(__always)
    static func isPlainLowercase(_ word: UInt64) -> Bool {
        let high: UInt64 = 0x8080_8080_8080_8080
        // Sums of seven bits and seven bits stay within their byte; a set highest bit says "at least".
        let low = word & ~high
        let isLetter = (low &+ 0x1F1F_1F1F_1F1F_1F1F) ^ (low &+ 0x0505_0505_0505_0505)
        let isDigit = (low &+ 0x5050_5050_5050_5050) ^ (low &+ 0x4646_4646_4646_4646)
        let isOtherThanDash = (low ^ 0x2D2D_2D2D_2D2D_2D2D) &+ 0x7F7F_7F7F_7F7F_7F7F
        return (isLetter | isDigit | ~isOtherThanDash) & ~word & high == high
    }

    /// The first position from `start` on whose byte may not stand in a field value, or `end`.
    @inline(__always)
    static func endOfFieldValue(_ bytes: Span<UInt8>, _ start: Int, _ end: Int) -> Int {
        var index = start
        while index &+ 8 <= end {
            let found = controls(bytes.word(at: index))
            if found == 0 {
                index &+= 8
                continue
            }
            index &+= found.trailingZeroBitCount / 8
            guard bytes[index] == 0x09 else { return index }
            index &+= 1
        }
        while index < end, isFieldValue(bytes[index]) { index &+= 1 }
        return index
    }

    /// The first position from `start` on, or at most seven before `end`, up to which all bytes are letters,
    /// digits and `-`: nearly every name consists of nothing else.
    @inline(__always)
    static func skipPlainName(_ bytes: Span<UInt8>, _ start: Int, _ end: Int) -> Int {
        let high: UInt64 = 0x8080_8080_8080_8080
        var index = start
        while index &+ 8 <= end {
            let word = bytes.word(at: index)
            // Sums of seven bits and seven bits stay within their byte; a set highest bit says "at least".
            let low = word & ~high
            let letter = low | 0x2020_2020_2020_2020
            let isLetter = (letter &+ 0x1F1F_1F1F_1F1F_1F1F) ^ (letter &+ 0x0505_0505_0505_0505)
            let isDigit = (low &+ 0x5050_5050_5050_5050) ^ (low &+ 0x4646_4646_4646_4646)
            let isOtherThanDash = (low ^ 0x2D2D_2D2D_2D2D_2D2D) &+ 0x7F7F_7F7F_7F7F_7F7F
            let isPlain = (isLetter | isDigit | ~isOtherThanDash) & ~word & high
            if isPlain == high {
                index &+= 8
                continue
            }
            return index &+ (isPlain ^ high).trailingZeroBitCount / 8
        }
        return index
    }

    /// Whether all bytes are letters, digits and `-`.
    @inline(__always)
    static func isPlainName(_ bytes: Span<UInt8>, _ start: Int, _ end: Int) -> Bool {
        var index = skipPlainName(bytes, start, end)
        while index < end, isPlainName(bytes[index]) { index &+= 1 }
        return index == end
    }

    /// Where a byte stands next from `start` on, or the end.
    @inline(__always)
    static func firstPlace(of byte: UInt8, in bytes: Span<UInt8>, from start: Int) -> Int {
        firstPlace(of: byte, in: bytes, from: start, to: bytes.count)
    }

    /// The same before `end`.
    @inline(__always)
    static func firstPlace(of byte: UInt8, in bytes: Span<UInt8>, from start: Int, to end: Int) -> Int {
        let pattern = UInt64(byte) &* 0x0101_0101_0101_0101
        var index = start
        while index &+ 8 <= end {
            let word = bytes.word(at: index) ^ pattern
            // The lowest bit set is exact; those above it may be carried over.
            let found = (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080
            if found != 0 { return index &+ found.trailingZeroBitCount / 8 }
            index &+= 8
        }
        while index < end, bytes[index] != byte { index &+= 1 }
        return index
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
        (
            packedWord(start, Swift.min(count, 8)), packedWord(start &+ 8, Swift.min(count &- 8, 8)),
            packedWord(start &+ 16, Swift.min(count &- 16, 8))
        )
    }

    /// At most eight bytes of it.
    @inline(__always)
    private func packedWord(_ start: Int, _ count: Int) -> UInt64 {
        if count <= 0 { return 0 }
        if start &+ 8 <= self.count {
            let word = word(at: start).byteSwapped | 0x2020_2020_2020_2020
            return word >> UInt64(64 &- 8 &* count)
        }
        if start &+ count >= 8 {
            // The last eight bytes up to its end, of which only its own count.
            let word = word(at: start &+ count &- 8).byteSwapped | 0x2020_2020_2020_2020
            return word & UInt64.max >> UInt64(64 &- 8 &* count)
        }
        var word: UInt64 = 0
        for index in start..<start &+ count { word = word << 8 | UInt64(self[index] | 0x20) }
        return word
    }

    /// Whether a part is the token whose packed form is given; `count` is the token's length, at most 16.
    @inline(__always)
    func isToken(_ range: Range<Int>, _ count: Int, _ first: UInt64, _ second: UInt64 = 0) -> Bool {
        guard range.count == count else { return false }
        let words = packedLowercase(range.lowerBound, count)
        return words.first == first && words.second == second
    }
}
