import Keys
import Limits

/// `keys`.
enum KeysSection {
    /// Every credential is compared with every prefix.
    private static let prefixesMax = 8
    /// Fields of a static key that are a single text; the record checks them.
    private static let textFields = ["id", "account", "name", "hint", "created_at", "expires_at"]

    static func read(
        _ value: Value?, tiers: [String], exposedKeys: ExposedKeyPolicy
    ) -> KeysConfiguration? {
        var keys = KeysConfiguration(
            prefixes: ["sk_live_"], pepper: nil, cacheEntries: 100_000, ttlSeconds: 300,
            unknownTTLSeconds: 30, staleForSeconds: 600, exposedKeys: exposedKeys, staticKeys: [])
        guard let value else { return keys }
        guard let section = value.section() else { return nil }
        defer { section.finish() }
        if let list = section["prefixes"] { keys.prefixes = readPrefixes(list) }
        keys.pepper = section["pepper_file"].flatMap(Paths.secret).map(StorePassword.init)
        if let cache = section["cache"]?.section() {
            keys.cacheEntries = cache["entries"]?.integer(in: 1...10_000_000) ?? keys.cacheEntries
            keys.ttlSeconds = seconds(cache["ttl"], 1...86_400) ?? keys.ttlSeconds
            keys.unknownTTLSeconds = seconds(cache["unknown_ttl"], 1...3_600) ?? keys.unknownTTLSeconds
            keys.staleForSeconds = seconds(cache["stale_for"], 0...604_800) ?? keys.staleForSeconds
            cache.finish()
        }
        var digests: Set<Digest256> = []
        var names: Set<String> = []
        for item in section["static"]?.list() ?? [] {
            guard let record = readStatic(item, tiers: tiers) else { continue }
            if !digests.insert(record.digest).inserted {
                item.problem("this key stands here more than once")
            } else if !names.insert(record.id).inserted {
                item.problem("another key above has the same id")
            }
            keys.staticKeys.append(record)
        }
        return keys
    }

    private static func readPrefixes(_ list: Value) -> [String] {
        var prefixes: [String] = []
        let items = list.listOrOne()
        if items.count > prefixesMax { list.problem("more than \(prefixesMax) prefixes") }
        if list.isEmptyList { list.problem("at least one prefix is needed") }
        for item in items {
            guard let text = item.text() else { continue }
            if KeyFormat(prefixes: [text]) == nil {
                // Not shown: it may be a whole key.
                item.problem(
                    "a prefix is 1 to \(KeyFormat.prefixBytesMax) letters, digits and -._~+/, like sk_live_")
            } else if prefixes.contains(text) {
                item.problem("this prefix stands here more than once")
            }
            prefixes.append(text)
        }
        return prefixes
    }

    private static func seconds(_ value: Value?, _ range: ClosedRange<Int>) -> Int? {
        guard let value,
            let milliseconds = value.duration(in: range.lowerBound * 1_000...range.upperBound * 1_000)
        else { return nil }
        guard milliseconds.isMultiple(of: 1_000) else {
            value.problem("\(value.written) is not a number of whole seconds")
            return nil
        }
        return milliseconds / 1_000
    }

    private static func readStatic(_ value: Value, tiers: [String]) -> KeyRecord? {
        guard let section = value.section() else { return nil }
        defer { section.finish() }
        let digest = section.required("sha256", "a static key").flatMap(readDigest)
        var fields: [(name: String, value: String)] = []
        for name in textFields {
            if let text = section[name]?.text() { fields.append((name, text)) }
        }
        if let limits = section["limits"].flatMap(TierSection.limits) {
            fields.append(("limits", limits.text))
        }
        if let list = section["scopes"] {
            let scopes = RouteSection.readScopes(list)
            fields.append(("scopes", scopes.map(\.text).joined(separator: " ")))
        }
        let statuses = KeyRecord.Status.allCases.map { ($0.rawValue, $0) }
        if let status = section["status"]?.choice(statuses) { fields.append(("status", status.rawValue)) }
        let tier = section.required("tier", "a static key").flatMap { readTier($0, tiers) }
        guard let tier else { return nil }
        fields.append(("tier", tier))
        do {
            // A digest that cannot be read is a problem already; the other fields may be wrong all the same.
            let record = try KeyRecord(digest: digest ?? Digest256((0, 0, 0, 0)), fields: fields) { _ in true
            }
            return digest == nil ? nil : record
        } catch {
            var place = value
            if case .unreadable(let field) = error { place = section[field] ?? value }
            place.problem(error.text)
            return nil
        }
    }

    private static func readDigest(_ value: Value) -> Digest256? {
        guard let text = value.text() else { return nil }
        let digest = Digest256(hex: text)
        // Not shown: it may be the key itself.
        if digest == nil { value.problem("sha256 is 64 hexadecimal digits") }
        return digest
    }

    private static func readTier(_ value: Value, _ tiers: [String]) -> String? {
        guard let text = value.text() else { return nil }
        guard tiers.contains(text) else {
            value.problem("unknown tier \"\(value.written)\"" + Suggestion.text(for: text, among: tiers))
            return nil
        }
        return text
    }
}
