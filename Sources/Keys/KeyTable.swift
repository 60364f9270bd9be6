// The table under both halves of the key cache: chained hashing over slots that never move, CLOCK eviction.
//
// Chains instead of open addressing, because an entry hangs in two indexes at once and its number is handed
// out. CLOCK instead of an LRU list, because a hit then writes at most one byte, and mostly none.

/// Credentials by fingerprint and by digest. All storage is allocated in `init`.
final class KeyTable {
    /// What is remembered of one credential. What a look-up touches stands first, in one cache line.
    struct Slot: BitwiseCopyable {
        var fingerprint: Fingerprint
        var expiresAtMicroseconds: Int64
        var value: Int32
        var generation: UInt32
        /// Chain of equal fingerprint hashes, or of free slots.
        var nextByFingerprint: Int32 = none
        /// CLOCK's mark: used since the hand last came by.
        var isReferenced = false
        var isLive = true
        var verifiedAtMicroseconds: Int64
        var digest: Digest256
        var nextByDigest: Int32 = none
    }

    let slots: FixedArray<Slot>
    private let byFingerprint: FixedArray<Int32>
    private let byDigest: FixedArray<Int32>
    private let seed: UInt64
    private(set) var count = 0
    /// Slots below this number have been written at least once.
    private var highWater = 0
    private var freeHead = none
    private var hand = 0

    private static let none: Int32 = -1

    init(capacity: Int, seed: UInt64) {
        precondition(capacity > 0 && capacity < Int(Int32.max) / 2, "a key table has a sensible size")
        var buckets = 16
        while buckets < capacity { buckets *= 2 }
        slots = FixedArray(uninitializedCount: capacity)
        byFingerprint = FixedArray(repeating: Self.none, count: buckets)
        byDigest = FixedArray(repeating: Self.none, count: buckets)
        self.seed = seed
    }

    /// The entry of a credential, marked as used.
    func find(_ fingerprint: Fingerprint) -> Int? {
        var index = byFingerprint[bucket(of: fingerprint)]
        while index != Self.none {
            let entry = Int(index)
            if slots[entry].fingerprint == fingerprint {
                if !slots[entry].isReferenced { slots[entry].isReferenced = true }
                return entry
            }
            index = slots[entry].nextByFingerprint
        }
        return nil
    }

    /// The entry of a record.
    func find(_ digest: Digest256) -> Int? {
        var index = byDigest[bucket(of: digest)]
        while index != Self.none {
            let entry = Int(index)
            if slots[entry].digest == digest { return entry }
            index = slots[entry].nextByDigest
        }
        return nil
    }

    /// Whether an entry may be used without asking anybody.
    ///
    /// - Parameter since: entries confirmed before this instant need the news of changes, which is missing.
    @inline(__always)
    func isFresh(_ entry: Int, _ generation: UInt32, _ nowMicroseconds: Int64, since: Int64) -> Bool {
        slots[entry].generation == generation && nowMicroseconds < slots[entry].expiresAtMicroseconds
            && slots[entry].verifiedAtMicroseconds >= since
    }

    /// Inserts or replaces. A replaced entry keeps its number.
    func insert(_ slot: Slot) -> (entry: Int, evictedValue: Int32?) {
        var evicted: Int32?
        if let old = find(slot.fingerprint) { evicted = remove(old) }
        if freeHead == Self.none && highWater == slots.count { evicted = remove(victim()) }
        let entry = allocate()
        slots[entry] = slot
        slots[entry].isLive = true
        // Not yet referenced: a key seen once goes before a key seen twice.
        slots[entry].isReferenced = false
        let fingerprintBucket = bucket(of: slot.fingerprint)
        slots[entry].nextByFingerprint = byFingerprint[fingerprintBucket]
        byFingerprint[fingerprintBucket] = Int32(entry)
        let digestBucket = bucket(of: slot.digest)
        slots[entry].nextByDigest = byDigest[digestBucket]
        byDigest[digestBucket] = Int32(entry)
        count += 1
        return (entry, evicted)
    }

    /// Takes an entry out of both indexes and returns its value.
    @discardableResult
    func remove(_ entry: Int) -> Int32 {
        precondition(slots[entry].isLive, "a key table entry is removed once")
        unlinkByFingerprint(entry)
        unlinkByDigest(entry)
        slots[entry].isLive = false
        slots[entry].nextByFingerprint = freeHead
        freeHead = Int32(entry)
        count -= 1
        return slots[entry].value
    }

    private func allocate() -> Int {
        guard freeHead != Self.none else {
            highWater += 1
            return highWater - 1
        }
        let entry = Int(freeHead)
        freeHead = slots[entry].nextByFingerprint
        return entry
    }

    /// The first entry behind the hand that was not used since the hand last passed. Only called when every
    /// slot is live, so it ends within two rounds, and marks are set one at a time, so a round costs little
    /// on average.
    private func victim() -> Int {
        while true {
            let entry = hand
            hand = hand + 1 == slots.count ? 0 : hand + 1
            guard slots[entry].isReferenced else { return entry }
            slots[entry].isReferenced = false
        }
    }

    private func unlinkByFingerprint(_ entry: Int) {
        let bucket = bucket(of: slots[entry].fingerprint)
        let next = slots[entry].nextByFingerprint
        guard byFingerprint[bucket] != Int32(entry) else {
            byFingerprint[bucket] = next
            return
        }
        var index = Int(byFingerprint[bucket])
        while slots[index].nextByFingerprint != Int32(entry) { index = Int(slots[index].nextByFingerprint) }
        slots[index].nextByFingerprint = next
    }

    private func unlinkByDigest(_ entry: Int) {
        let bucket = bucket(of: slots[entry].digest)
        let next = slots[entry].nextByDigest
        guard byDigest[bucket] != Int32(entry) else {
            byDigest[bucket] = next
            return
        }
        var index = Int(byDigest[bucket])
        while slots[index].nextByDigest != Int32(entry) { index = Int(slots[index].nextByDigest) }
        slots[index].nextByDigest = next
    }

    /// A fingerprint is the output of a keyed function already.
    @inline(__always)
    private func bucket(of fingerprint: Fingerprint) -> Int {
        Int(truncatingIfNeeded: fingerprint.low) & (byFingerprint.count &- 1)
    }

    /// A digest is not keyed: its low bits can be chosen by trying keys, those of a seeded product cannot.
    @inline(__always)
    private func bucket(of digest: Digest256) -> Int {
        let product = (digest.word0 ^ seed).multipliedFullWidth(by: seed | 1)
        return Int(truncatingIfNeeded: product.high ^ product.low) & (byDigest.count &- 1)
    }
}
