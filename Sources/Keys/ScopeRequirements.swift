// Scope checks at the price of one bit test.
//
// The routes of a configuration ask for few distinct sets of scopes. They are numbered here when the
// configuration is resolved; when a key enters a worker's table, what it covers is worked out once as a set
// of those numbers; and the check of a request is whether its route's number is in its key's set. A reload
// makes new numbers, so a table entry must not outlive the configuration its grants were computed from.

/// The distinct sets of scopes that the routes of one configuration ask for.
package struct ScopeRequirements: Sendable {
    /// Most distinct sets, as many as `ScopeGrants` has bits.
    package static let countMax = 512

    /// The sets by number. Number 0 is always the empty set, which every valid key meets.
    package private(set) var sets: [ScopeSet] = [.none]

    /// Only the empty set.
    package init() {}

    /// The number of `set`, in which order does not matter; `nil` when it would be the 513th.
    package mutating func number(of set: ScopeSet) -> Int? {
        let wanted = Set(set.scopes)
        if let known = sets.firstIndex(where: { Set($0.scopes) == wanted }) { return known }
        guard sets.count < Self.countMax else { return nil }
        sets.append(set)
        return sets.count - 1
    }

    /// The numbers of all sets that a key with `scopes` meets.
    package func grants(of scopes: ScopeSet) -> ScopeGrants {
        var grants = ScopeGrants()
        for (number, set) in sets.enumerated() where scopes.covers(set) { grants.insert(number) }
        return grants
    }
}

/// Which requirement sets one key meets: 64 bytes without references, kept in the worker's table beside the
/// key.
package struct ScopeGrants: Sendable, BitwiseCopyable {
    @usableFromInline var words: InlineArray<8, UInt64>

    /// Meets nothing, not even the empty set.
    package init() { words = .init(repeating: 0) }

    /// Whether the key meets the set `number` (0 to 511).
    @inlinable
    package func contains(_ number: Int) -> Bool {
        words[number &>> 6] &>> UInt64(truncatingIfNeeded: number & 63) & 1 == 1
    }

    mutating func insert(_ number: Int) {
        words[number >> 6] |= 1 << UInt64(number & 63)
    }
}
