import Foundation
package import Keys

/// Keys and what is said of them as JSON: the same members for programs that run the commands and for those
/// that call the admin interface.
package enum KeyJSON {
    /// An object of a key's fields: `scopes` as an array, times in Unix seconds, and only what there is.
    ///
    /// - Parameters:
    ///   - secret: the key itself, where it is shown for the first and last time.
    ///   - isReplay: whether it was made before by the same creation, and shown then.
    ///   - isPassing: whether the key ends with the process, unless its entry is put into the configuration.
    package static func object(
        _ key: StoredKey, secret: String? = nil, isReplay: Bool = false, isPassing: Bool = false
    ) -> String {
        var members: [String] = []
        if let secret { members.append("\"key\":\(string(secret))") }
        if isPassing { members.append("\"static_entry\":\(string(staticEntry(key.record)))") }
        if isReplay { members.append("\"replayed\":true") }
        members += self.members(key.record.fields.map { ($0.name, $0.value) })
        if let seen = key.lastSeenSeconds { members.append("\"last_used\":\(seen)") }
        if let calls = key.callsSinceRotation { members.append("\"calls_since_rotation\":\(calls)") }
        if let due = key.rotationDue() { members.append("\"rotation_due\":\"\(due.rawValue)\"") }
        if key.isStatic { members.append("\"static\":true") }
        members.append("\"version\":\"\(key.version)\"")
        return "{" + members.joined(separator: ",") + "}"
    }

    /// The line under `keys.static` that declares a key.
    package static func staticEntry(_ record: KeyRecord) -> String {
        var parts = [
            "sha256: \"\(record.digest.hexadecimal)\"", "id: \(quoted(record.id))",
            "account: \(quoted(record.account))", "tier: \(quoted(record.tier))",
        ]
        let scopes = record.scopes.scopes.map { quoted($0.text) }.joined(separator: ", ")
        parts.append("scopes: [\(scopes)]")
        if let expires = record.expiresAtSeconds { parts.append("expires_at: \(expires)") }
        if let limits = record.limits { parts.append("limits: \(quoted(limits))") }
        if let name = record.name { parts.append("name: \(quoted(name))") }
        return "- { " + parts.joined(separator: ", ") + " }"
    }

    /// A text as a scalar of the configuration, where `${` would ask for a variable of the environment: what
    /// it is filled in with is not looked at again.
    private static func quoted(_ text: String) -> String {
        string(text.replacing("${", with: "${DOLLAR:-$}{"))
    }

    /// Fields of a record as an object; one without a value is null.
    static func object(_ fields: [(name: String, value: String?)]) -> String {
        "{" + members(fields).joined(separator: ",") + "}"
    }

    private static func members(_ fields: [(name: String, value: String?)]) -> [String] {
        fields.map { field in
            guard let value = field.value else { return "\"\(field.name)\":null" }
            switch field.name {
            case "scopes":
                let scopes = value.split(separator: " ").map { string(String($0)) }
                return "\"scopes\":[\(scopes.joined(separator: ","))]"
            case "created_at", "expires_at", "revoked_at":
                // What another program wrote may begin with zeros, which no JSON number does.
                return "\"\(field.name)\":\(Int64(value).map { "\($0)" } ?? string(value))"
            default: return "\"\(field.name)\":\(string(value))"
            }
        }
    }

    /// A text that is a JSON object as it is, and anything else as a string.
    static func embedded(_ text: String) -> String {
        let isObject =
            text.hasPrefix("{") && (try? JSONSerialization.jsonObject(with: Data(text.utf8))) != nil
        return isObject ? text : string(text)
    }

    /// A JSON string with its quotes.
    package static func string(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            default:
                if scalar.value < 0x20 || scalar.value == 0x7f {
                    let digits = String(scalar.value, radix: 16)
                    result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
                } else {
                    result.unicodeScalars.append(scalar)
                }
            }
        }
        return result + "\""
    }
}
