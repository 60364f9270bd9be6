import Yams

// A thin layer over the YAML tree: every read names what it wants, notes a problem at its place when the file
// has something else, and goes on with the default, so that one run finds everything.

/// One value of the file.
struct Value {
    let node: Node
    let context: Context

    var place: Place {
        guard let mark = node.mark else { return Place(line: 1, column: 1) }
        return Place(line: mark.line, column: mark.column)
    }

    /// The value as messages may show it.
    var written: String { Shown.text(node.scalar?.string ?? "") }

    /// The value as a path for messages; nil when it may be something that nobody should read.
    var writtenPath: String? { Shown.path(node.scalar?.string ?? "") }

    /// Whether the environment has a part in the value.
    var isFilledIn: Bool { node.scalar?.string.contains("${") == true }

    /// `[]`, as opposed to what is no list.
    var isEmptyList: Bool { node.sequence?.isEmpty == true }

    var isNull: Bool {
        guard let scalar = node.scalar, scalar.style == .plain else { return false }
        return scalar.string.isEmpty || scalar.string == "~" || scalar.string == "null"
    }

    private var kind: String {
        switch node {
        case .scalar: isNull ? "nothing" : "a single value"
        case .mapping: "names with values"
        case .sequence: "a list"
        case .alias: "an alias"
        }
    }

    func problem(_ text: String) { context.problems.add(place, text) }

    /// A scalar's text with `${NAME}` and `${NAME:-default}` replaced; never empty.
    func text() -> String? {
        guard let scalar = node.scalar else {
            problem("expected a single value, found \(kind)")
            return nil
        }
        do {
            let text = try Substitution.fill(scalar.string, from: context.environment)
            if !text.isEmpty, !isNull { return text }
            problem("expected a value, found nothing")
        } catch {
            problem(error.text)
        }
        return nil
    }

    func bool() -> Bool? {
        guard let text = text() else { return nil }
        switch text {
        case "true", "yes", "on": return true
        case "false", "no", "off": return false
        default:
            problem("\"\(written)\" is not true or false")
            return nil
        }
    }

    func integer(in range: ClosedRange<Int>) -> Int? {
        guard let text = text() else { return nil }
        guard let number = Units.digits(Substring(text)) else {
            problem("\"\(written)\" is not a whole number")
            return nil
        }
        return check(number, range) { "\($0)" }
    }

    /// Milliseconds.
    func duration(in range: ClosedRange<Int>) -> Int? {
        guard let text = text() else { return nil }
        guard let number = Units.milliseconds(text) else {
            problem("\"\(written)\" is not a duration like 250ms, 5s or 10m")
            return nil
        }
        return check(number, range, Units.text(milliseconds:))
    }

    /// Bytes.
    func size(in range: ClosedRange<Int>) -> Int? {
        guard let text = text() else { return nil }
        guard let number = Units.bytes(text) else {
            problem("\"\(written)\" is not a size like 512B, 32KiB or 10MiB")
            return nil
        }
        return check(number, range, Units.text(bytes:))
    }

    private func check(_ number: Int, _ range: ClosedRange<Int>, _ show: (Int) -> String) -> Int? {
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
            "\"\(written)\" is not one of \(names.joined(separator: ", "))"
                + Suggestion.text(for: text, among: names))
        return nil
    }

    /// `10%` or `0.1%`, in millionths.
    func share() -> Int? {
        guard let text = text() else { return nil }
        let parts = text.dropLast().split(separator: ".", omittingEmptySubsequences: false)
        guard text.hasSuffix("%"), (1...2).contains(parts.count), let whole = Units.digits(parts[0]),
            whole <= 100,
            parts.count == 1 || (1...4).contains(parts[1].count),
            let fraction = parts.count == 1
                ? 0 : Units.digits(parts[1] + String(repeating: "0", count: 4 - min(4, parts[1].count))),
            whole * 10_000 + fraction <= 1_000_000
        else {
            problem("\"\(written)\" is not a share between 0% and 100%, like 10% or 0.1%")
            return nil
        }
        return whole * 10_000 + fraction
    }

    func list() -> [Value] {
        guard let sequence = node.sequence else {
            problem("expected a list, found \(kind)")
            return []
        }
        return sequence.map { Value(node: $0, context: context) }
    }

    /// A list, or a single value that stands for a list of one.
    func listOrOne() -> [Value] {
        node.scalar == nil ? list() : [self]
    }

    /// A mapping with the keys of a description.
    func section(_ description: SectionDescription) -> Section? {
        guard let mapping = node.mapping else {
            problem("expected names with values, found \(kind)")
            return nil
        }
        return Section(mapping, self, description)
    }

    /// A mapping whose keys are the operator's own names.
    func names() -> Section? { section(SectionDescription("", "", [])) }
}
