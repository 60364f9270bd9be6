// What a worker remembers of keys: which of its slots holds the record of a credential, and which credentials
// the store does not know.
//
// Known and unknown credentials live in two tables, so that a flood of guesses cannot push out a single good
// key. Both are found by fingerprint on the way of a request and by digest when an invalidation names a
// record. Entries are never flushed one by one when the invalidation channel is lost: a generation number
// makes all of them stale at once, and each is validated again when it is next used.
//
// The cache knows nothing of records. It keeps the caller's slot number and hands it back whenever an entry
// goes, so that whoever owns the slots can free them.

/// What the cache can say of a credential.
package enum KeyCacheAnswer: Sendable, Equatable {
    /// An entry that may be served as it is.
    case known(Int)
    /// An entry whose time is over or which was learned before the invalidation channel was lost: ask the
    /// store again.
    case stale(Int)
    /// The store did not know it a moment ago.
    case unknown
    /// Nothing is remembered.
    case absent
}

/// One worker's memory of keys. Of fixed size, not thread-safe, and free of allocation after `init`.
package final class KeyCache {
    /// How old what is served may be while changes are not heard.
    package static let unheardMicroseconds: Int64 = 1_000_000

    private let known: KeyTable
    private let unknown: KeyTable
    /// Entries of older generations are stale.
    private var generation: UInt32 = 1
    /// Added to it for the unknown.
    private var unknownGeneration: UInt32 = 0
    /// Until when entries may be served on the strength of the news: a second after the last proof that all
    /// changes have been heard. Afterwards only what the store confirmed within a second is fresh.
    private var heardUntilMicroseconds = Int64.max

    /// - Parameters:
    ///   - entries: most known keys, at least 1.
    ///   - unknownEntries: most unknown ones, at least 1.
    ///   - seed: random; keeps callers from choosing keys whose digests fall into one chain.
    package init(entries: Int, unknownEntries: Int, seed: UInt64) {
        known = KeyTable(capacity: entries, seed: seed)
        unknown = KeyTable(capacity: unknownEntries, seed: seed)
    }

    /// Takes the proof that all changes up to an instant have been heard.
    package func hear(untilMicroseconds: Int64) { heardUntilMicroseconds = untilMicroseconds }

    /// Known keys held.
    package var count: Int { known.count }
    /// Unknown credentials held.
    package var unknownCount: Int { unknown.count }

    /// Looks a credential up. An entry number stays good until the next `insert`, `remove` or `invalidate`.
    package func find(_ fingerprint: Fingerprint, nowMicroseconds: Int64) -> KeyCacheAnswer {
        let since =
            nowMicroseconds <= heardUntilMicroseconds
            ? Int64.min : nowMicroseconds &- Self.unheardMicroseconds
        if let entry = known.find(fingerprint) {
            return known.isFresh(entry, generation, nowMicroseconds, since: since)
                ? .known(entry) : .stale(entry)
        }
        guard let entry = unknown.find(fingerprint) else { return .absent }
        if unknown.isFresh(entry, generation &+ unknownGeneration, nowMicroseconds, since: since) {
            return .unknown
        }
        unknown.remove(entry)
        return .absent
    }

    /// Remembers a key that the store knows, in place of whatever was remembered of it.
    ///
    /// - Returns: its entry, and the slot of the entry that had to make room or was replaced, for the caller
    ///   to free.
    package func insert(
        _ fingerprint: Fingerprint, digest: Digest256, value: Int32, nowMicroseconds: Int64,
        expiresAtMicroseconds: Int64
    ) -> (entry: Int, evictedValue: Int32?) {
        if let entry = unknown.find(fingerprint) { unknown.remove(entry) }
        return known.insert(
            KeyTable.Slot(
                fingerprint: fingerprint, expiresAtMicroseconds: expiresAtMicroseconds, value: value,
                generation: generation, verifiedAtMicroseconds: nowMicroseconds, digest: digest))
    }

    /// Remembers that the store does not know a credential.
    ///
    /// - Parameter nowMicroseconds: when the store was asked.
    /// - Returns: the slot of an entry that held it as known until now, for the caller to free.
    @discardableResult
    package func insertUnknown(
        _ fingerprint: Fingerprint, digest: Digest256, nowMicroseconds: Int64, expiresAtMicroseconds: Int64
    ) -> Int32? {
        let removed = remove(fingerprint)
        _ = unknown.insert(
            KeyTable.Slot(
                fingerprint: fingerprint, expiresAtMicroseconds: expiresAtMicroseconds, value: 0,
                generation: generation &+ unknownGeneration, verifiedAtMicroseconds: nowMicroseconds,
                digest: digest))
        return removed
    }

    /// The caller's slot number.
    package func value(of entry: Int) -> Int32 { known.slots[entry].value }

    /// Gives an entry another slot; nothing else of it changes.
    ///
    /// - Returns: the slot that it had, for the caller to free.
    package func replaceValue(of entry: Int, with value: Int32) -> Int32 {
        let former = known.slots[entry].value
        known.slots[entry].value = value
        return former
    }

    /// The digest that the entry was inserted with.
    package func digest(of entry: Int) -> Digest256 { known.slots[entry].digest }

    /// When the store last confirmed the entry; serving it while the store is away is counted from here.
    package func verifiedAtMicroseconds(of entry: Int) -> Int64 { known.slots[entry].verifiedAtMicroseconds }

    /// The store confirmed the entry as it is: it is fresh again, in the present generation.
    package func refresh(_ entry: Int, nowMicroseconds: Int64, expiresAtMicroseconds: Int64) {
        known.slots[entry].generation = generation
        known.slots[entry].verifiedAtMicroseconds = nowMicroseconds
        known.slots[entry].expiresAtMicroseconds = expiresAtMicroseconds
    }

    /// Forgets a credential, known or unknown.
    ///
    /// - Returns: the slot it held as known.
    @discardableResult
    package func remove(_ fingerprint: Fingerprint) -> Int32? {
        if let entry = unknown.find(fingerprint) { unknown.remove(entry) }
        guard let entry = known.find(fingerprint) else { return nil }
        return known.remove(entry)
    }

    /// Forgets the record `digest`, which somebody wrote or deleted.
    ///
    /// - Returns: the slot it held as known.
    @discardableResult
    package func invalidate(_ digest: Digest256) -> Int32? {
        if let entry = unknown.find(digest) { unknown.remove(entry) }
        guard let entry = known.find(digest) else { return nil }
        return known.remove(entry)
    }

    /// Forgets which credentials are unknown, in one step: a record that could not be used may be good now.
    package func forgetUnknown() {
        unknownGeneration &+= 1
    }

    /// Makes every entry stale in one step: invalidations may have been missed.
    package func invalidateAll() {
        generation &+= 1  // wraps after four thousand million outages
    }
}
