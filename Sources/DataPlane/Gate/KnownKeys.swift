import Keys
import Synchronization

/// The records that any worker has had from the store, for the time when it is away: callers land on any
/// worker, and a key that has worked must not stop because its next connection landed on another.
///
/// Written when a record is looked up, read only while the store is away. Each worker forgets a changed
/// record after whatever it had learned before, so that none outlives the news of its change.
final class KnownKeys: Sendable {
    private struct Known {
        var record: KeyRecord
        var verifiedAtMicroseconds: Int64
    }

    /// Two halves, so that making room costs nothing: when the recent one is full, it takes the older one's
    /// place.
    private struct Halves {
        var recent: [Digest256: Known] = [:]
        var older: [Digest256: Known] = [:]
    }

    private let halves = Mutex(Halves())
    private let halfCount: Int

    /// - Parameter entries: most records kept, at least 2; half of them are kept for certain.
    init(entries: Int) { halfCount = max(1, entries / 2) }

    func insert(_ record: KeyRecord, verifiedAtMicroseconds: Int64) {
        halves.withLock { halves in
            if halves.recent.count >= halfCount, halves.recent[record.digest] == nil {
                halves.older = halves.recent
                halves.recent = [:]
            }
            halves.recent[record.digest] = Known(
                record: record, verifiedAtMicroseconds: verifiedAtMicroseconds)
        }
    }

    /// The record, and when the store last confirmed it.
    func find(_ digest: Digest256) -> (record: KeyRecord, verifiedAtMicroseconds: Int64)? {
        halves.withLock { halves in
            let known = halves.recent[digest] ?? halves.older[digest]
            return known.map { ($0.record, $0.verifiedAtMicroseconds) }
        }
    }

    func forget(_ digest: Digest256) {
        halves.withLock { halves in
            halves.recent[digest] = nil
            halves.older[digest] = nil
        }
    }
}
