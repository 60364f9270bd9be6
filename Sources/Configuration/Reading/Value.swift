import Yams

// A thin layer over the YAML tree: every read names what it wants, notes a problem at its place when the file
// has something else, and goes on with the default, so that one run finds everything.

/// What reading needs everywhere.
final class Context {
    let problems = ProblemList()
    let environment: [String: String]
    let files: any FileAccess

    init(environment: [String: String], files: any FileAccess) {
        self.environment = environment
        self.files = files
    }
}

/// One value of the file.
struct Value {
    let node: Node
    let context: Context

    var place: Place {
        guard let mark = node.mark else { return Place(line: 1, column: 1) }
        return Place(line: mark.line, column: mark.column)
    }

    func problem(_ text: String) { context.problems.add(place, text) }

    var isNull: Bool {
        guard case .scalar(let scalar) = node, scalar.style == .plain else { return false }
        return scalar.string.isEmpty || scalar.string == "~" || scalar.string == "null"
    }

    /// A scalar's text with `${NAME}` and `${NAME:-default}` replaced.
    func text() -> String? {
        guard case .scalar(let scalar) = node else {
            problem("expected a single value, found \(kind)")
            return nil
        }
        return substitute(scalar.string)
    }

    private func substitute(_ text: String) -> String? {
        guard text.contains("${") else { return text }
        var result = ""
        var rest = Substring(text)
        while let start = rest.firstRange(of: "${") {
            result += rest[..<start.lowerBound]
            let inside = rest[start.upperBound...]
            guard let end = inside.firstIndex(of: "}") else {
                problem("\"${\" without \"}\"")
                return nil
            }
            let body = inside[..<end]
            rest = inside[inside.index(after: end)...]
            let name: Substring
            var fallback: String?
            if let mark = body.firstRange(of: ":-") {
                name = body[..<mark.lowerBound]
                fallback = String(body[mark.upperBound...])
            } else {
                name = body
            }
            let found = context.environment[String(name)]
            if let found, !found.isEmpty || fallback == nil {
                result += found
            } else if let fallback {
                result += fallback
            } else {
                problem("the environment variable \(name) is not set")
                return nil
            }
        }
        return result + rest
    }

    func nonEmptyText() -> String? {
        guard let text = text() else { return nil }
        guard !text.isEmpty else {
            problem("expected a value, found nothing")
            return nil
        }
        return text
    }

    func bool() -> Bool? {
        guard let text = text() else { return nil }
        switch text {
        case "true", "yes", "on": return true
        case "false", "no", "off": return false
        default:
            problem("\"\(text)\" is not true or false")
            return nil
        }
    }

    func integer(in range: ClosedRange<Int>) -> Int? {
        guard let text = text() else { return nil }
        guard let number = Units.digits(Substring(text)) else {
            problem("\"\(text)\" is not a whole number")
            return nil
        }
        return check(number, range, "\(number)", { "\($0)" })
    }

    /// Milliseconds.
    func duration(in range: ClosedRange<Int>) -> Int? {
        guard let text = text() else { return nil }
        guard let number = Units.milliseconds(text) else {
            problem("\"\(text)\" is not a duration like 250ms, 5s or 10m")
            return nil
        }
        return check(number, range, text, { "\($0)ms" })
    }

    /// Bytes.
    func size(in range: ClosedRange<Int>) -> Int? {
        guard let text = text() else { return nil }
        guard let number = Units.bytes(text) else {
            problem("\"\(text)\" is not a size like 512B, 32KiB or 10MiB")
            return nil
        }
        return check(number, range, text, { "\($0)B" })
    }

    private func check(
        _ number: Int, _ range: ClosedRange<Int>, _ written: String, _ show: (Int) -> String
    ) -> Int? {
        guard range.contains(number) else {
            problem("\(written) is not between \(show(range.lowerBound)) and \(show(range.upperBound))")
            return nil
        }
        return number
    }

    /// One of a few words.
    func choice<Choice>(_ choices: [(String, Choice)]) -> Choice? {
        guard let text = text() else { return nil }
        if let found = choices.first(where: { $0.0 == text }) { return found.1 }
        let names = choices.map(\.0)
        problem(
            "\"\(text)\" is not one of \(names.joined(separator: ", "))"
                + Suggestion.text(for: text, among: names))
        return nil
    }

    func list() -> [Value] {
        guard case .sequence(let sequence) = node else {
            problem("expected a list, found \(kind)")
            return []
        }
        return sequence.map { Value(node: $0, context: context) }
    }

    /// A list, or a single value that stands for a list of one.
    func listOrOne() -> [Value] {
        if case .scalar = node { return [self] }
        return list()
    }

    func section() -> Section? {
        guard case .mapping(let mapping) = node else {
            problem("expected names with values, found \(kind)")
            return nil
        }
        return Section(mapping, self)
    }

    private var kind: String {
        switch node {
        case .scalar(let scalar): return scalar.string.isEmpty ? "nothing" : "\"\(scalar.string)\""
        case .mapping: return "names with values"
        case .sequence: return "a list"
        case .alias: return "an alias"
        }
    }
}

/// A mapping whose keys are known beforehand.
final class Section {
    let value: Value
    private var entries: [(key: String, keyPlace: Place, value: Value)] = []
    private var asked: [String] = []

    init(_ mapping: Node.Mapping, _ value: Value) {
        self.value = value
        for (key, item) in mapping {
            let keyValue = Value(node: key, context: value.context)
            guard let name = key.scalar?.string else {
                keyValue.problem("a name must be a plain word")
                continue
            }
            entries.append((name, keyValue.place, Value(node: item, context: value.context)))
        }
    }

    /// The value of a key, nil when it is absent or empty.
    subscript(key: String) -> Value? {
        asked.append(key)
        guard let found = entries.first(where: { $0.key == key })?.value, !found.isNull else { return nil }
        return found
    }

    func required(_ key: String, _ hint: String) -> Value? {
        if let found = self[key] { return found }
        value.problem("\(hint) needs \"\(key)\"")
        return nil
    }

    /// All entries, for mappings whose keys are the operator's own names.
    func all() -> [(key: String, place: Place, value: Value)] {
        entries.map { ($0.key, $0.keyPlace, $0.value) }
    }

    /// Reports keys that nobody has asked for.
    func finish() {
        for entry in entries where !asked.contains(entry.key) {
            value.context.problems.add(
                entry.keyPlace,
                "unknown key \"\(entry.key)\"" + Suggestion.text(for: entry.key, among: asked))
        }
    }
}

/// How the loader reaches files; tests give it their own.
package protocol FileAccess: Sendable {
    /// The file's bytes, or a sentence that says why not.
    func read(_ path: String) -> Result<[UInt8], FileProblem>
}

package struct FileProblem: Error, Sendable {
    package let text: String
    package init(_ text: String) { self.text = text }
}
