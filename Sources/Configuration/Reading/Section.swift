import Yams

/// A mapping whose keys are known beforehand, by their descriptions.
final class Section {
    private struct Entry {
        let key: String
        let place: Place
        let value: Value
    }

    /// More levels of `<<` than this are a mistake.
    private static let mergeDepthMax = 8

    let value: Value
    private let description: SectionDescription
    private var entries: [Entry] = []

    init(_ mapping: Node.Mapping, _ value: Value, _ description: SectionDescription) {
        self.value = value
        self.description = description
        add(mapping, depth: 0)
    }

    /// What stands here itself goes before what `<<` brings in, and the first of several before the others.
    private func add(_ mapping: Node.Mapping, depth: Int) {
        var merged: [Node.Mapping] = []
        for (key, item) in mapping {
            let keyValue = Value(node: key, context: value.context)
            guard let scalar = key.scalar else {
                keyValue.problem("a name must be a plain word")
                continue
            }
            if scalar.string == "<<", scalar.style == .plain {
                merged += Self.mergeable(Value(node: item, context: value.context))
            } else if !entries.contains(where: { $0.key == scalar.string }) {
                entries.append(
                    Entry(
                        key: scalar.string, place: keyValue.place,
                        value: Value(node: item, context: value.context)))
            }
        }
        guard depth < Self.mergeDepthMax else {
            if !merged.isEmpty { value.problem("more than \(Self.mergeDepthMax) levels of \"<<\"") }
            return
        }
        for mapping in merged { add(mapping, depth: depth + 1) }
    }

    private static func mergeable(_ value: Value) -> [Node.Mapping] {
        var found: [Node.Mapping] = []
        for item in value.node.sequence == nil ? [value] : value.list() {
            if let mapping = item.node.mapping {
                found.append(mapping)
            } else {
                item.problem("\"<<\" takes names with values, or a list of them")
            }
        }
        return found
    }

    /// The value of a key, nil when it is absent. A key without a value is a mistake: taking it for the
    /// default would turn `client_ca:` with a forgotten path into "no client certificates".
    subscript(key: String) -> Value? {
        precondition(description.knows(key), "what is read is described")
        guard let entry = entries.first(where: { $0.key == key }) else { return nil }
        guard !entry.value.isNull else {
            value.context.problems.add(entry.place, "\"\(key)\" has no value")
            return nil
        }
        return entry.value
    }

    /// The value of a key that has no default.
    ///
    /// - Parameter owner: what needs it, such as `a route`.
    func required(_ key: String, _ owner: String) -> Value? {
        if let found = self[key] { return found }
        if !entries.contains(where: { $0.key == key }) { value.problem("\(owner) needs \"\(key)\"") }
        return nil
    }

    /// All entries, for mappings whose keys are the operator's own names.
    func all() -> [(key: String, place: Place, value: Value)] {
        entries.map { ($0.key, $0.place, $0.value) }
    }

    /// Reports keys that have no description.
    func finish() {
        let names = description.keys.map(\.name)
        for entry in entries where !description.knows(entry.key) {
            value.context.problems.add(
                entry.place,
                "unknown key \"\(Shown.text(entry.key))\"" + Suggestion.text(for: entry.key, among: names))
        }
    }
}
