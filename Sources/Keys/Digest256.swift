/// SHA-256, or HMAC-SHA-256 under the pepper, of a key: the only form in which a key is ever stored.
package struct Digest256: Hashable, Sendable, BitwiseCopyable {
    /// Digits of the hexadecimal form.
    package static let hexadecimalCount = 64

    /// The 32 bytes as four big-endian words.
    package let word0: UInt64, word1: UInt64, word2: UInt64, word3: UInt64

    /// Four big-endian words, first word first, as the digester returns them.
    package init(_ words: (UInt64, UInt64, UInt64, UInt64)) {
        (word0, word1, word2, word3) = words
    }

    /// Exactly 64 hexadecimal digits of either case; anything else is `nil`.
    package init?(hex: Span<UInt8>) {
        guard hex.count == Self.hexadecimalCount else { return nil }
        var words: InlineArray<4, UInt64> = [0, 0, 0, 0]
        for index in hex.indices {
            guard let digit = Self.value(ofDigit: hex[index]) else { return nil }
            words[index >> 4] = words[index >> 4] << 4 | digit
        }
        self.init((words[0], words[1], words[2], words[3]))
    }

    /// Exactly 64 hexadecimal digits of either case; anything else is `nil`.
    package init?(hex: String) {
        self.init(hex: hex.utf8.span)
    }

    /// The 64 lower-case digits, without allocating.
    package var hexadecimalBytes: InlineArray<64, UInt8> {
        var digits = InlineArray<64, UInt8>(repeating: 0)
        for index in digits.indices {
            let word = [word0, word1, word2, word3] as InlineArray<4, UInt64>
            let digit = UInt8(truncatingIfNeeded: word[index >> 4] >> UInt64(60 - 4 * (index & 15))) & 15
            digits[index] = digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") - 10 + digit
        }
        return digits
    }

    /// The 64 lower-case digits, as they stand in the name of a record.
    package var hexadecimal: String {
        let digits = hexadecimalBytes
        return String(decoding: digits.indices.map { digits[$0] }, as: UTF8.self)
    }

    private static func value(ofDigit byte: UInt8) -> UInt64? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt64(byte - UInt8(ascii: "0"))
        case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt64(byte - UInt8(ascii: "a") + 10)
        case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt64(byte - UInt8(ascii: "A") + 10)
        default: nil
        }
    }
}
