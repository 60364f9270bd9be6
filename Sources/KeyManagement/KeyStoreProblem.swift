/// Why a key operation was not done. Never holds a key.
package enum KeyStoreProblem: Error, Sendable, Equatable {
    /// Redis is not there, or answers nonsense.
    case unavailable(String)
    /// A value that cannot be: the field it was given for, named as in the record, and one sentence.
    case invalid(field: String, String)
    /// There is no such key.
    case notFound(String)
    /// The key's state, or another key, stands against it: the field that does, and one sentence.
    case conflict(field: String, String)
    /// The record is no longer the one that the caller has seen.
    case changed(String)
    /// What was asked for cannot be done here; one sentence.
    case refused(String)

    /// One sentence, without secrets.
    package var text: String {
        switch self {
        case .unavailable(let text), .notFound(let text), .changed(let text), .refused(let text): return text
        case .invalid(let field, let text), .conflict(let field, let text): return "\(field): \(text)"
        }
    }

    /// The field at fault, nil when it is none in particular.
    package var field: String? {
        switch self {
        case .invalid(let field, _), .conflict(let field, _): return field
        case .unavailable, .notFound, .changed, .refused: return nil
        }
    }
}
