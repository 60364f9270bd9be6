import Limits

/// `tiers`.
enum TierSection {
    /// Tiers that metrics can tell apart.
    static let tiersMax = 32

    static func read(_ value: Value) -> [TierConfiguration] {
        guard let section = value.names() else { return [] }
        var tiers: [TierConfiguration] = []
        for (name, place, item) in section.all() {
            guard Names.isName(name) else {
                value.context.problems.add(place, Names.problem(name))
                continue
            }
            // Known even when its limits cannot be read, so that references to it are no second problem.
            tiers.append(TierConfiguration(name: name, limits: readOne(name, item) ?? nothing))
        }
        if section.all().isEmpty { value.problem("at least one tier is needed") }
        if tiers.count > tiersMax { value.problem("more than \(tiersMax) tiers") }
        return tiers
    }

    private static func readOne(_ name: String, _ value: Value) -> LimitSpecification? {
        guard let tier = value.section(TierKeys.description) else { return nil }
        defer { tier.finish() }
        return tier.required("limits", "tier \"\(name)\"").flatMap(limits)
    }

    /// Stands for a tier whose limits cannot be read; the configuration is refused anyway.
    private static var nothing: LimitSpecification {
        guard let specification = try? LimitSpecification.parse("0/minute") else {
            preconditionFailure("this limit is well formed")
        }
        return specification
    }

    /// One limit, or a list of limits that hold together.
    static func limits(_ value: Value) -> LimitSpecification? {
        let items = value.listOrOne()
        if value.isEmptyList { value.problem("at least one limit is needed") }
        let parts = items.compactMap { item in item.text().flatMap { parse($0, item) } }
        guard !parts.isEmpty, parts.count == items.count else { return nil }
        return parse(parts.map(\.text).joined(separator: ","), value)
    }

    private static func parse(_ text: String, _ value: Value) -> LimitSpecification? {
        do {
            return try LimitSpecification.parse(text)
        } catch {
            // The sentence quotes the text, which the environment may have filled in.
            value.problem(
                value.isFilledIn ? "\"\(value.written)\" is not a limit like 100/minute" : error.text)
            return nil
        }
    }
}

/// Names that become metric labels and header texts.
enum Names {
    static let bytesMax = 64

    /// 1 to 64 letters, digits, - and _.
    static func isName(_ text: String) -> Bool {
        (1...bytesMax).contains(text.utf8.count)
            && text.utf8.allSatisfy { Bytes.isLetterOrDigit($0) || "-_".utf8.contains($0) }
    }

    static func problem(_ text: String) -> String {
        "\"\(Shown.text(text))\" is not a name: letters, digits, - and _, up to \(bytesMax)"
    }
}

enum TierKeys {
    static let description = SectionDescription(
        "tiers.<name>",
        "Limits of an account, by tier; a record may override them. Names have 1 to \(Names.bytesMax) "
            + "letters, digits, `-` and `_`; there are 1 to \(TierSection.tiersMax) tiers.",
        [
            .key(
                "limits", "one or a list of limits", default: nil,
                "windows that hold together: a call passes all of them or costs nothing")
        ])
}
