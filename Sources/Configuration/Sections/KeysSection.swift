import Keys
import Limits

/// `keys`.
enum KeysSection {
    /// Every credential is compared with every prefix.
    static let prefixesMax = 8
    /// Fields of a static key that are a single text; the record checks them.
    private static let textFields = ["id", "account", "name", "hint", "created_at", "expires_at"]

    static func read(
        _ value: Value?, tiers: [String], exposedKeys: ExposedKeyPolicy
    ) -> KeysConfiguration? {
        var keys = KeysConfiguration(
            prefixes: [KeysKeys.prefix], pepper: nil, cacheEntries: KeysKeys.entries.standard,
            ttlSeconds: KeysKeys.ttl.standard, unknownTTLSeconds: KeysKeys.unknownTTL.standard,
            staleForSeconds: KeysKeys.staleFor.standard, exposedKeys: exposedKeys, staticKeys: [])
        guard let value else { return keys }
        guard let section = value.section(KeysKeys.description) else { return nil }
        defer { section.finish() }
        if let list = section["prefixes"] { keys.prefixes = readPrefixes(list) }
        keys.pepper = section["pepper_file"].flatMap(Paths.secret).map(StorePassword.init)
        if let cache = section["cache"]?.section(KeysKeys.cache) {
            keys.cacheEntries = KeysKeys.entries.value(in: cache)
            keys.ttlSeconds = KeysKeys.ttl.value(in: cache)
            keys.unknownTTLSeconds = KeysKeys.unknownTTL.value(in: cache)
            keys.staleForSeconds = KeysKeys.staleFor.value(in: cache)
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

    private static func readStatic(_ value: Value, tiers: [String]) -> KeyRecord? {
        guard let section = value.section(KeysKeys.staticKey) else { return nil }
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
        fields.append(("status", KeysKeys.status.value(in: section).rawValue))
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

enum KeysKeys {
    static let prefix = "sk_live_"
    static let entries = Setting.integer(
        "entries", in: 1...10_000_000, default: 100_000,
        "keys that each worker remembers; about 1 KiB each when in use")
    static let ttl = Setting.seconds(
        "ttl", in: 1...86_400, default: 300,
        "a record is asked for again after this; changes arrive at once all the same")
    static let unknownTTL = Setting.seconds(
        "unknown_ttl", in: 1...3_600, default: 30, "an unknown key is refused for this without asking again")
    static let staleFor = Setting.seconds(
        "stale_for", in: 0...604_800, default: 600, "known keys serve for this while Redis is away")
    static let status = Setting.choice(
        "status", KeyRecord.Status.allCases.map { ($0.rawValue, $0) }, default: "active",
        "whether the key may be used")

    static let description = SectionDescription(
        "keys", "How keys look and how long they are remembered.",
        [
            .key(
                "prefixes",
                "one or a list of texts of 1 to \(KeyFormat.prefixBytesMax) letters, digits and `-._~+/`",
                default: prefix,
                "what a key starts with; the first is for new keys; 1 to \(KeysSection.prefixesMax)"),
            .key(
                "pepper_file", "path of a file", default: "SHA-256 without",
                "HMAC-SHA-256 with this text; choose before the first key, it changes every digest"),
            .key("cache", "section", default: "its defaults", "how long keys are remembered"),
            .key(
                "static", "list of sections", default: "none",
                "keys declared here, looked at before the store"),
        ])
    static let cache = SectionDescription(
        "keys.cache", "How many keys are remembered, and for how long.",
        [entries.description, ttl.description, unknownTTL.description, staleFor.description])
    static let staticKey = SectionDescription(
        "keys.static[]", "A key that is declared here, by its digest.",
        [
            .key(
                "sha256", "64 hexadecimal digits", default: nil,
                "the whole key's digest, as `sha256sum` prints it for the key without a line break; the HMAC "
                    + "with `pepper_file`"),
            .key(
                "id", "up to \(KeyRecord.nameBytesMax) bytes", default: "`key_` and 16 digits of the digest",
                "the key's public name"),
            .key(
                "account", "up to \(KeyRecord.nameBytesMax) bytes", default: "the id",
                "who is charged: limits are counted for an account"),
            .key("name", "up to \(KeyRecord.textBytesMax) bytes", default: "none", "what its owner calls it"),
            .key("hint", "text", default: "none", "its last four characters"),
            .key("created_at", "Unix seconds", default: "none", "when it was made"),
            .key("expires_at", "Unix seconds", default: "never", "the first second in which it is refused"),
            .key("limits", "one or a list of limits", default: "the tier's", "instead of the tier's"),
            .key("scopes", "one or a list of scopes", default: "none", "what it may do, like `projects:*`"),
            status.description,
            .key("tier", "name of a tier", default: nil, "its limits"),
        ])
}
