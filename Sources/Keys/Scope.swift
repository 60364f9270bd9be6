// Scopes: what a key may do, and what a route asks for.
//
// A scope is a name made of segments, `projects:read`. A key may hold `projects:*`, which covers every name
// below
// `projects:` at any depth but not `projects` itself, and `*`, which covers everything. A route asks for
// names; if it asks for a wildcard it means exactly that grant, so only a key that holds it, or a wider one,
// passes.

/// One scope in its text form, known to be well formed.
package struct Scope: Hashable, Sendable {
    /// Longest scope, in bytes.
    package static let bytesMax = 128

    /// As written, such as `projects:read`, `projects:*` or `*`.
    package let text: String

    /// `nil` unless the text is 1 to 128 characters of RFC 6749 3.3 (visible ASCII without `"` and `\`), no
    /// segment is empty, and `*` stands alone or as the last segment.
    package init?(_ text: String) {
        let bytes = text.utf8
        guard (1...Self.bytesMax).contains(bytes.count),
            bytes.allSatisfy({ (0x21...0x7e).contains($0) && $0 != 0x22 && $0 != 0x5c })
        else { return nil }
        let segments = bytes.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        for (index, segment) in segments.enumerated() {
            guard !segment.isEmpty else { return nil }
            let isWildcard = segment.elementsEqual("*".utf8)
            guard isWildcard ? index == segments.count - 1 : !segment.contains(UInt8(ascii: "*")) else {
                return nil
            }
        }
        self.text = text
    }

    /// Whether a key that holds this scope may do what `required` names.
    package func covers(_ required: Scope) -> Bool {
        if self == required { return true }
        guard text.utf8.last == UInt8(ascii: "*") else { return false }
        // "*" leaves the empty prefix, which begins everything; "projects:*" leaves "projects:".
        return required.text.utf8.starts(with: text.utf8.dropLast())
    }
}

/// The scopes of one key, in the order of its record, without repetitions.
package struct ScopeSet: Sendable, Equatable {
    /// Most scopes of one key. With `Scope.bytesMax` it bounds the header that tells the upstream about them.
    package static let countMax = 64

    /// The scopes themselves.
    package let scopes: [Scope]

    /// No scope at all: such a key passes only routes that ask for none.
    package static let none = ScopeSet(scopes: [])

    private init(scopes: [Scope]) { self.scopes = scopes }

    /// `nil` when there are more than 64 distinct scopes.
    package init?(_ scopes: [Scope]) {
        var seen: Set<Scope> = []
        let distinct = scopes.filter { seen.insert($0).inserted }
        guard distinct.count <= Self.countMax else { return nil }
        self.init(scopes: distinct)
    }

    /// Reads scopes separated by one or more spaces; `nil` when one is malformed or there are too many.
    package init?(text: String) {
        var scopes: [Scope] = []
        for part in text.split(separator: " ") {
            guard let scope = Scope(String(part)) else { return nil }
            scopes.append(scope)
        }
        self.init(scopes)
    }

    /// Separated by single spaces, as in a record, in `X-Gateway-Scopes`, and in a challenge (RFC 6750 3).
    package var text: String { scopes.map(\.text).joined(separator: " ") }

    /// Whether every scope of `required` is covered.
    package func covers(_ required: ScopeSet) -> Bool {
        required.scopes.allSatisfy { wanted in scopes.contains { $0.covers(wanted) } }
    }
}
