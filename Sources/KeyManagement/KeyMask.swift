package import Keys

/// Takes keys out of what is written down: a caller may put one into a path, an id of a request, or anything
/// else that a log repeats.
package struct KeyMask: Sendable {
    /// What stands behind a prefix is a key from this many characters on, whoever made it.
    private static let bodyCountMin = 8
    /// A shorter prefix is met by chance; behind it only a right checksum tells a key.
    private static let prefixCountMin = 4
    private static let ellipsis = Array("…".utf8)

    private let format: KeyFormat
    private let prefixes: [[UInt8]]
    private let begins: [Bool]

    /// Masks keys of this format.
    package init(_ format: KeyFormat) {
        self.format = format
        // The longest first: one prefix may begin with another.
        prefixes = format.prefixes.map { Array($0.utf8) }.sorted { $0.count > $1.count }
        var begins = [Bool](repeating: false, count: 256)
        for prefix in prefixes { begins[Int(prefix[0])] = true }
        self.begins = begins
    }

    /// The same bytes with `…` in place of what follows the prefix of each key.
    package func mask(_ bytes: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        var copied = 0
        var index = 0
        while index < bytes.count {
            guard begins[Int(bytes[index])], let body = body(in: bytes, at: index) else {
                index += 1
                continue
            }
            result += bytes[copied..<body.lowerBound]
            result += Self.ellipsis
            index = body.upperBound
            copied = index
        }
        return copied == 0 ? bytes : result + bytes[copied...]
    }

    private func body(in bytes: [UInt8], at start: Int) -> Range<Int>? {
        for prefix in prefixes {
            let first = start + prefix.count
            guard first < bytes.count, bytes[start..<first].elementsEqual(prefix) else { continue }
            var end = first
            while end < bytes.count, Self.isBody(bytes[end]) { end += 1 }
            let generated = first + KeyFormat.randomCount + KeyFormat.checksumCount
            if generated <= end,
                format.classify(Array(bytes[start..<generated]).span) == .generatedShapeValid
            {
                return first..<end
            }
            // Ids of keys are no keys, whatever the prefix.
            let isTelling = prefix.count >= Self.prefixCountMin && !prefix.starts(with: "key_".utf8)
            if isTelling, end - first >= Self.bodyCountMin { return first..<end }
        }
        return nil
    }

    /// What a credential may be made of (`token68`, RFC 9110 section 11.2): not every key is of our making.
    private static func isBody(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "-")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "_"), UInt8(ascii: "+"), UInt8(ascii: "~"),
            UInt8(ascii: "="):
            true
        default: false
        }
    }
}
