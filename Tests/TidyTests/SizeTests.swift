import Testing

/// Limits on what a reader has to hold at once.
@Suite("Sizes")
struct SizeTests {
    static let fileLinesMax = 500
    static let functionLinesMax = 70
    static let lineColumnsMax = 110

    @Test("no file outgrows one sitting")
    func files() {
        for file in SourceTree.repository.swift {
            #expect(
                file.lines.count - 1 <= Self.fileLinesMax, "\(file.path) has \(file.lines.count - 1) lines")
        }
    }

    @Test("no line runs off the page")
    func lines() {
        for file in SourceTree.repository.swift {
            for (index, line) in file.lines.enumerated() where line.utf8.count > Self.lineColumnsMax {
                // Bytes first, for speed: the count of characters walks every grapheme.
                if line.count > Self.lineColumnsMax {
                    Issue.record("\(file.path):\(index + 1): \(line.count) columns")
                }
            }
        }
    }

    /// The formatter puts a function's closing brace alone, under the column where its declaration began.
    @Test("no function outgrows a screen")
    func functions() {
        for file in SourceTree.repository.swift {
            for (index, line) in file.lines.enumerated() {
                let words = line.split(separator: " ")
                let isFunction = words.contains("func") || words.contains { $0.hasPrefix("init(") }
                guard isFunction, words.first?.hasPrefix("//") == false else { continue }
                let indent = line.prefix { $0 == " " }
                let rest = file.lines[(index + 1)...]
                guard Self.opensBody(file.lines, at: index),
                    let end = rest.firstIndex(where: { $0 == indent + "}" })
                else { continue }
                let length = end - index + 1
                #expect(length <= Self.functionLinesMax, "\(file.path):\(index + 1): \(length) lines")
            }
        }
    }

    /// Whether the declaration at `index` has a body that does not close on its own line.
    private static func opensBody(_ lines: [Substring], at index: Int) -> Bool {
        for line in lines[index...].prefix(12) {
            if line.hasSuffix("{") { return true }
            if line.hasSuffix("}") || line.isEmpty { return false }
        }
        return false
    }
}
