// Records as lists of fields: the hash in Redis, and the entries of `keys.static`.
//
// Reading is strict, because the record decides about access: an optional field may be absent, but a field
// that is present and cannot be read refuses the key. Fields that nobody here knows are left alone.

extension KeyRecord {
    /// Longest id and account, in bytes. Both stand in headers to the upstream and the account in names of
    /// windows.
    package static let nameBytesMax = 128
    /// Longest free text (`name`), in bytes.
    package static let textBytesMax = 256

    /// Reads a record as the store returned it.
    ///
    /// - Parameters:
    ///   - digest: what it is stored under.
    ///   - fields: names and values in any order, each name at most once.
    ///   - isTier: whether a name is that of a configured tier.
    package init(
        digest: Digest256, fields: [(name: String, value: String)], isTier: (String) -> Bool
    ) throws(KeyRecordProblem) {
        var values: [String: String] = [:]
        for field in fields where Self.fieldNames.contains(field.name) {
            guard values.updateValue(field.value, forKey: field.name) == nil else {
                throw .repeated(field: field.name)
            }
        }
        guard let tier = values["tier"] else { throw .missingTier }
        guard isTier(tier) else { throw .unknownTier(tier) }
        self.init(digest: digest, tier: tier)
        if let text = values["id"] { id = try Self.identifier(text, field: "id") }
        // Only now: the account falls back on the id of the record, not on the default id.
        account =
            try values["account"].map { text throws(KeyRecordProblem) in
                try Self.identifier(text, field: "account")
            } ?? id
        if let text = values["scopes"] {
            guard let read = ScopeSet(text: text) else { throw .unreadable(field: "scopes") }
            scopes = read
        }
        if let text = values["status"] {
            guard let read = Status(rawValue: text) else { throw .unknownStatus(text) }
            status = read
        }
        createdAtSeconds = try Self.seconds(values["created_at"], field: "created_at")
        expiresAtSeconds = try Self.seconds(values["expires_at"], field: "expires_at")
        revokedAtSeconds = try Self.seconds(values["revoked_at"], field: "revoked_at")
        if revokedAtSeconds != nil { status = .revoked }
        limits = values["limits"]
        name = try Self.freeText(values["name"], field: "name")
        hint = try Self.freeText(values["hint"], field: "hint")
        rotatedTo = try Self.link(values["rotated_to"], field: "rotated_to")
        rotatedFrom = try Self.link(values["rotated_from"], field: "rotated_from")
    }

    /// The fields to write, in the order of the documentation; absent ones are left out.
    package var fields: [(name: String, value: String)] {
        let all: [(name: String, value: String?)] = [
            ("id", id), ("account", account), ("tier", tier), ("scopes", scopes.text),
            ("status", status.rawValue),
            ("name", name), ("hint", hint), ("created_at", createdAtSeconds.map(String.init)),
            ("expires_at", expiresAtSeconds.map(String.init)),
            ("revoked_at", revokedAtSeconds.map(String.init)), ("limits", limits), ("rotated_to", rotatedTo),
            ("rotated_from", rotatedFrom),
        ]
        return all.compactMap { field in field.value.map { (field.name, $0) } }
    }

    /// Every field that means something.
    package static let fieldNames: Set<String> = [
        "id", "account", "tier", "scopes", "status", "name", "hint", "created_at", "expires_at", "revoked_at",
        "limits", "rotated_to", "rotated_from",
    ]

    /// Whether `text` may be an id or an account: 1 to 128 bytes, no control characters, no space at either
    /// end, and no braces, which mark the part of a window's name that chooses its place in a Redis cluster.
    package static func isIdentifier(_ text: String) -> Bool {
        let bytes = text.utf8
        return (1...nameBytesMax).contains(bytes.count) && isPrintable(text)
            && bytes.first != 0x20 && bytes.last != 0x20
            && !bytes.contains(UInt8(ascii: "{")) && !bytes.contains(UInt8(ascii: "}"))
    }

    private static func identifier(_ text: String, field: String) throws(KeyRecordProblem) -> String {
        guard isIdentifier(text) else { throw .unreadable(field: field) }
        return text
    }

    /// An empty link is the same as none: that is how a program takes one back.
    private static func link(_ text: String?, field: String) throws(KeyRecordProblem) -> String? {
        guard let text, !text.isEmpty else { return nil }
        return try identifier(text, field: field)
    }

    private static func freeText(_ text: String?, field: String) throws(KeyRecordProblem) -> String? {
        guard let text, !text.isEmpty else { return nil }
        guard text.utf8.count <= textBytesMax, isPrintable(text) else { throw .unreadable(field: field) }
        return text
    }

    /// 1 to 12 digits and nothing else: no sign, no blank, no fraction. An empty `expires_at` is not "never".
    private static func seconds(_ text: String?, field: String) throws(KeyRecordProblem) -> Int64? {
        guard let text else { return nil }
        guard (1...12).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let value = Int64(text)
        else { throw .unreadable(field: field) }
        return value
    }

    /// No control characters, and no sign that bytes were not UTF-8: two unreadable names must not become
    /// one.
    package static func isPrintable(_ text: String) -> Bool {
        text.unicodeScalars.allSatisfy { scalar in
            scalar.value >= 0x20 && !(0x7f...0x9f).contains(scalar.value) && scalar.value != 0xfffd
        }
    }
}
