import Keys
import Limits

/// `tiers`.
enum TierSection {
    /// Tiers that metrics can tell apart.
    private static let tiersMax = 32

    static func read(_ value: Value) -> [TierConfiguration] {
        guard let section = value.section() else { return [] }
        var tiers: [TierConfiguration] = []
        for (name, place, item) in section.all() {
            guard Names.isName(name) else {
                value.context.problems.add(
                    place, "\"\(name)\" is not a name: letters, digits, - and _, up to 64")
                continue
            }
            guard let tier = item.section() else { continue }
            defer { tier.finish() }
            guard let limits = tier.required("limits", "tier \"\(name)\"").flatMap(limits) else {
                // Known all the same, so that references to it are no second problem.
                tiers.append(TierConfiguration(name: name, limits: Self.nothing))
                continue
            }
            tiers.append(TierConfiguration(name: name, limits: limits))
        }
        if tiers.isEmpty { value.problem("at least one tier is needed") }
        if tiers.count > tiersMax { value.problem("more than \(tiersMax) tiers") }
        return tiers
    }

    /// Stands for a tier whose limits cannot be read; the configuration is refused anyway.
    private static var nothing: LimitSpecification {
        guard let specification = try? LimitSpecification.parse("0/minute") else {
            preconditionFailure("this limit is well formed")
        }
        return specification
    }

    static func limits(_ value: Value) -> LimitSpecification? {
        let texts = value.listOrOne().compactMap { $0.nonEmptyText() }
        guard !texts.isEmpty else { return nil }
        do {
            return try LimitSpecification.parse(texts.joined(separator: ","))
        } catch {
            value.problem(error.text)
            return nil
        }
    }
}

/// Names that become metric labels and header texts.
enum Names {
    static func isName(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.count <= 64
            && text.utf8.allSatisfy {
                $0 >= 48 && $0 <= 57 || $0 >= 65 && $0 <= 90 || $0 >= 97 && $0 <= 122 || $0 == 45 || $0 == 95
            }
    }
}

/// `keys`.
enum KeysSection {
    static func read(
        _ value: Value?, tiers: [String], exposedKeys: ExposedKeyPolicy
    ) -> KeysConfiguration? {
        var keys = KeysConfiguration(
            prefixes: ["sk_live_"], pepper: nil, cacheEntries: 100_000, ttlSeconds: 300,
            unknownTTLSeconds: 30,
            staleForSeconds: 600, exposedKeys: exposedKeys, staticKeys: [])
        guard let value else { return keys }
        guard let section = value.section() else { return nil }
        defer { section.finish() }
        if let list = section["prefixes"] {
            keys.prefixes = list.listOrOne().compactMap { $0.nonEmptyText() }
            if KeyFormat(prefixes: keys.prefixes) == nil {
                list.problem(
                    "prefixes are 1 to 8 different words of letters, digits and -._~+/, each up to 32 bytes")
            }
        }
        keys.pepper = section["pepper_file"].flatMap(Paths.secret).map(StorePassword.init)
        if let cache = section["cache"]?.section() {
            keys.cacheEntries = cache["entries"]?.integer(in: 1...10_000_000) ?? keys.cacheEntries
            keys.ttlSeconds = seconds(cache["ttl"], 1...86_400) ?? keys.ttlSeconds
            keys.unknownTTLSeconds = seconds(cache["unknown_ttl"], 1...3_600) ?? keys.unknownTTLSeconds
            keys.staleForSeconds = seconds(cache["stale_for"], 0...604_800) ?? keys.staleForSeconds
            cache.finish()
        }
        if let list = section["static"] {
            for item in list.list() {
                guard let record = readStatic(item, tiers: tiers) else { continue }
                if keys.staticKeys.contains(where: { $0.digest == record.digest }) {
                    item.problem("this key stands here more than once")
                }
                keys.staticKeys.append(record)
            }
        }
        return keys
    }

    private static func seconds(_ value: Value?, _ range: ClosedRange<Int>) -> Int? {
        value?.duration(in: range.lowerBound * 1_000...range.upperBound * 1_000).map { $0 / 1_000 }
    }

    private static func readStatic(_ value: Value, tiers: [String]) -> KeyRecord? {
        guard let section = value.section() else { return nil }
        defer { section.finish() }
        var fields: [(name: String, value: String)] = []
        var digest: Digest256?
        if let hex = section.required("sha256", "a static key"), let text = hex.nonEmptyText() {
            digest = Digest256(hex: text)
            if digest == nil { hex.problem("sha256 is 64 hexadecimal digits") }
        }
        for name in ["id", "account", "tier", "status", "name", "hint", "created_at", "expires_at", "limits"]
        {
            guard let item = section[name] else { continue }
            if name == "limits" {
                if let limits = TierSection.limits(item) { fields.append((name, limits.text)) }
            } else if let text = item.nonEmptyText() {
                fields.append((name, text))
            }
        }
        if let scopes = section["scopes"] {
            fields.append(
                ("scopes", scopes.listOrOne().compactMap { $0.nonEmptyText() }.joined(separator: " ")))
        }
        if let tier = section.required("tier", "a static key"), let text = tier.text(), !tiers.contains(text)
        {
            tier.problem("unknown tier \"\(text)\"" + Suggestion.text(for: text, among: tiers))
            return nil
        }
        guard let digest else { return nil }
        do {
            return try KeyRecord(digest: digest, fields: fields) { tiers.contains($0) }
        } catch {
            value.problem(error.text)
            return nil
        }
    }
}
