/// Why a record cannot be used. Its key is refused with 401: what cannot be read never widens access.
///
/// The text quotes at most a tier's name or a status, shortened and printable: a record is written by other
/// programs, and a field may hold anything, even a key.
package enum KeyRecordProblem: Error, Sendable, Equatable {
    /// `tier` is absent.
    case missingTier
    /// `tier` names none of the configured tiers.
    case unknownTier(String)
    /// `status` is none of active, disabled, revoked.
    case unknownStatus(String)
    /// A field that holds a number, a name or scopes cannot be read as one.
    case unreadable(field: String)
    /// A field occurs twice.
    case repeated(field: String)

    /// One line for the log.
    package var text: String {
        switch self {
        case .missingTier: "the record has no tier"
        case .unknownTier(let tier): "unknown tier \"\(Self.quoted(tier))\""
        case .unknownStatus(let status): "unknown status \"\(Self.quoted(status))\""
        case .unreadable(let field): "unreadable field \"\(field)\""
        case .repeated(let field): "repeated field \"\(field)\""
        }
    }

    /// At most 32 printable ASCII characters.
    private static func quoted(_ value: String) -> String {
        let shown = value.unicodeScalars.prefix(32).map { scalar in
            (0x20...0x7e).contains(scalar.value) && scalar != "\"" ? Character(scalar) : "?"
        }
        return String(shown) + (value.unicodeScalars.count > 32 ? "..." : "")
    }
}
