import Yams

// From text to tree. The parser stops at the first name that stands twice in one mapping, but a person wants
// all problems at once. So the first of the two is renamed in memory, to characters that nobody writes and
// that take the same number of columns, and the text is parsed again until no name is repeated. The tree then
// loses the renamed entries, each with a problem at the one that is left. What cannot be renamed is reported
// alone.

/// Parses one file.
struct Composition {
    /// A name that was renamed because the same mapping has it again.
    private struct Renamed {
        let name: String
        let place: Place
    }

    /// More repeated names than this are reported in parts.
    private static let renamedMax = 64
    /// The first of the private-use characters, which YAML allows in plain words.
    private static let firstMark: UInt32 = 0xE000

    private let problems: ProblemList
    private var text: String
    private var renamed: [Renamed] = []

    private init(_ text: String, _ problems: ProblemList) {
        self.text = text
        self.problems = problems
    }

    /// The tree of the file's only document; nil when there is none or it cannot be parsed.
    static func compose(_ text: String, _ problems: ProblemList) -> Node? {
        var composition = Composition(text, problems)
        while true {
            do {
                guard let node = try Yams.compose(yaml: composition.text) else { return nil }
                return composition.renamed.isEmpty ? node : composition.withoutRenamed(node)
            } catch {
                if composition.rename(error) { continue }
                composition.report(error)
                return nil
            }
        }
    }

    /// Never shows the text itself: the line at fault may hold a password.
    private func report(_ error: any Error) {
        for item in renamed {
            problems.add(item.place, "\"\(Shown.text(item.name))\" stands here more than once")
        }
        switch error as? YamlError {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            problems.add(Place(line: max(1, mark.line), column: max(1, mark.column)), problem)
        case .duplicatedKeysInMapping(let names, let context):
            let all = names.map { "\"\(Shown.text($0))\"" }.joined(separator: ", ")
            problems.add(
                Place(line: context.mark.line, column: context.mark.column),
                "\(all) stands here more than once")
        case .reader(let problem, let offset, _, _):
            problems.add(place(ofCharacter: offset ?? 0), problem)
        default:
            problems.add(Place(line: 1, column: 1), "the file is no YAML")
        }
    }

    private func place(ofCharacter offset: Int) -> Place {
        var place = Place(line: 1, column: 1)
        for character in text.prefix(offset) {
            if character.isNewline {
                place = Place(line: place.line + 1, column: 1)
            } else {
                place.column += character.unicodeScalars.count
            }
        }
        return place
    }

    /// Renames the first of two equal names; false when the error is another one or the name cannot be found.
    private mutating func rename(_ error: any Error) -> Bool {
        guard case .duplicatedKeysInMapping(let names, let context) = error as? YamlError,
            let name = names.first, !name.isEmpty, renamed.count < Self.renamedMax,
            let mark = Unicode.Scalar(Self.firstMark + UInt32(renamed.count))
        else { return false }
        var scalars = Array(text.unicodeScalars)
        guard var start = Self.index(of: context.mark, in: scalars) else { return false }
        if scalars[start] == "\"" || scalars[start] == "'" { start += 1 }
        let wanted = Array(name.unicodeScalars)
        guard scalars[start...].starts(with: wanted) else { return false }
        for index in start..<start + wanted.count { scalars[index] = mark }
        var changed = String.UnicodeScalarView()
        changed.append(contentsOf: scalars)
        text = String(changed)
        renamed.append(
            Renamed(name: name, place: Place(line: context.mark.line, column: context.mark.column)))
        return true
    }

    /// Where a mark points to; lines end as YAML 1.1 ends them.
    private static func index(of mark: Mark, in scalars: [Unicode.Scalar]) -> Int? {
        var line = 1
        var index = 0
        while line < mark.line {
            guard index < scalars.count else { return nil }
            let scalar = scalars[index]
            index += 1
            if scalar == "\r", index < scalars.count, scalars[index] == "\n" { index += 1 }
            if ["\r", "\n", "\u{85}", "\u{2028}", "\u{2029}"].contains(scalar) { line += 1 }
        }
        index += mark.column - 1
        return scalars.indices.contains(index) ? index : nil
    }

    private func withoutRenamed(_ node: Node) -> Node {
        switch node {
        case .scalar, .alias: return node
        case .sequence(let sequence):
            return .sequence(
                Node.Sequence(sequence.map(withoutRenamed), sequence.tag, sequence.style, sequence.mark))
        case .mapping(let mapping):
            var kept: [(Node, Node)] = []
            var dropped: [Renamed] = []
            for (key, value) in mapping {
                if let item = renamedItem(key) {
                    dropped.append(item)
                } else {
                    kept.append((key, withoutRenamed(value)))
                }
            }
            for item in dropped {
                // Never nothing: what was dropped must not pass for a good file.
                let mark = kept.first { $0.0.scalar?.string == item.name }?.0.mark
                problems.add(
                    mark.map { Place(line: $0.line, column: $0.column) } ?? item.place,
                    "\"\(Shown.text(item.name))\" already stands in line \(item.place.line)")
            }
            return .mapping(Node.Mapping(kept, mapping.tag, mapping.style, mapping.mark))
        }
    }

    private func renamedItem(_ key: Node) -> Renamed? {
        guard let first = key.scalar?.string.unicodeScalars.first, first.value >= Self.firstMark else {
            return nil
        }
        let number = Int(first.value - Self.firstMark)
        return renamed.indices.contains(number) ? renamed[number] : nil
    }
}
