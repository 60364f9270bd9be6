import Foundation

/// A case of one of the corpora in `Tests/Corpus`: bytes to send, what must become of them, and why.
struct CorpusCase: Sendable {
    /// One line of bytes, or something to do between them.
    enum Step: Sendable {
        case bytes(String, endsLine: Bool)
        case action(String)
    }

    let name: String
    var rfc = ""
    var expectation = ""
    var why = ""
    /// Words of a line that begins with `request`.
    var request: [Substring] = []
    var checks: [String] = []
    var steps: [Step] = []

    /// What a failure is reported with.
    var label: String { "\(name) (RFC \(rfc)): \(why)" }

    /// The words of the expectation with the number behind each, -1 where there is none.
    var expected: [String: Int] {
        var found: [String: Int] = [:]
        var last = ""
        for word in expectation.split(separator: " ").map(String.init) {
            if let number = Int(word) {
                found[last] = number
            } else {
                found[word] = -1
                last = word
            }
        }
        return found
    }

    /// All bytes, with a key's line where the caller shows one.
    func bytes(authorization: String?) -> [UInt8] {
        steps.flatMap { Self.bytes(of: $0, authorization: authorization) }
    }

    static func bytes(of step: Step, authorization: String? = nil) -> [UInt8] {
        guard case .bytes(let text, let endsLine) = step else { return [] }
        if text == "{auth}" || text == "{auth or filler}" {
            let line = authorization ?? (text == "{auth}" ? nil : "X-Filler: 1")
            return line.map { Array("\($0)\r\n".utf8) } ?? []
        }
        return unescape(text) + (endsLine ? [0x0D, 0x0A] : [])
    }

    /// Bytes of a text with escapes and repetitions.
    static func unescape(_ text: String) -> [UInt8] {
        var result: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "{"), let run = repetition(rest) {
                let text = unescape(String(decoding: run.text, as: UTF8.self))
                for _ in 0..<run.count { result += text }
                rest = rest.dropFirst(run.length)
                continue
            }
            guard byte == UInt8(ascii: "\\"), let mark = rest.popFirst() else {
                result.append(byte)
                continue
            }
            switch mark {
            case UInt8(ascii: "r"): result.append(0x0D)
            case UInt8(ascii: "n"): result.append(0x0A)
            case UInt8(ascii: "t"): result.append(0x09)
            case UInt8(ascii: "x"):
                result.append(UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) ?? 0)
                rest = rest.dropFirst(2)
            default: result.append(mark)
            }
        }
        return result
    }

    /// `N*text}` behind an opening brace.
    private static func repetition(
        _ rest: ArraySlice<UInt8>
    ) -> (count: Int, text: ArraySlice<UInt8>, length: Int)? {
        guard let star = rest.firstIndex(of: UInt8(ascii: "*")),
            let count = Int(String(decoding: rest[..<star], as: UTF8.self)),
            let end = rest[star...].firstIndex(of: UInt8(ascii: "}"))
        else { return nil }
        return (count, rest[(star + 1)..<end], end + 1 - rest.startIndex)
    }
}

/// The cases of one file.
enum CorpusFile {
    static func read(_ name: String) throws -> [CorpusCase] {
        let folder = URL(filePath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent().appending(path: "Corpus")
        let text = try String(contentsOf: folder.appending(path: name), encoding: .utf8)
        var cases: [CorpusCase] = []
        for line in text.split(separator: "\n", omittingEmptySubsequences: true) {
            let word = line.prefix { $0 != " " }
            let rest = String(line.dropFirst(word.count + 1))
            if word == "==" {
                cases.append(CorpusCase(name: rest))
            } else if word != "#", !cases.isEmpty {
                try add(String(word), rest, to: &cases[cases.count - 1])
            }
        }
        return cases
    }

    private static func add(_ word: String, _ rest: String, to entry: inout CorpusCase) throws {
        switch word {
        case "rfc": entry.rfc = rest
        case "expect": entry.expectation = rest
        case "why": entry.why = rest
        case "request": entry.request = rest.split(separator: " ").map { Substring(String($0)) }
        case "check": entry.checks.append(rest)
        case ">", "<": entry.steps.append(.bytes(rest, endsLine: true))
        case ">>", "<<": entry.steps.append(.bytes(rest, endsLine: false))
        case "@": entry.steps.append(.action(rest))
        default: throw HarnessError("\(entry.name): a line begins with \(word)")
        }
    }
}
