package import Keys

/// Finds keys in text: strings with one of the prefixes, the shape of a generated key and a right checksum,
/// which a look-alike has once in four thousand million.
package struct KeyScanner: Sendable {
    private let format: KeyFormat
    private let prefixes: [[UInt8]]

    /// Looks for keys of this format.
    package init(_ format: KeyFormat) {
        self.format = format
        // The longest first: one prefix may begin with another.
        prefixes = format.prefixes.map { Array($0.utf8) }.sorted { $0.count > $1.count }
    }

    /// Where keys stand in `text`, in order and without overlaps.
    package func find(in text: [UInt8]) -> [Range<Int>] {
        var found: [Range<Int>] = []
        let firsts = Set(prefixes.map { $0[0] })
        var index = 0
        while index < text.count {
            guard firsts.contains(text[index]), let end = keyEnd(in: text, at: index) else {
                index += 1
                continue
            }
            found.append(index..<end)
            index = end
        }
        return found
    }

    /// Whether a key stands anywhere in `text`.
    package func holdsKey(_ text: String) -> Bool { !find(in: Array(text.utf8)).isEmpty }

    private func keyEnd(in text: [UInt8], at start: Int) -> Int? {
        for prefix in prefixes {
            let end = start + prefix.count + KeyFormat.randomCount + KeyFormat.checksumCount
            guard end <= text.count, text[start..<start + prefix.count].elementsEqual(prefix) else {
                continue
            }
            let token = Array(text[start..<end])
            if format.classify(token.span) == .generatedShapeValid { return end }
        }
        return nil
    }
}
