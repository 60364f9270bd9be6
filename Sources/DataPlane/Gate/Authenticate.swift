import Configuration
import HTTPWire
import Keys
import Limits
import Reactor
import TLS

/// What authentication came to.
enum Credential {
    case key(Slot<ActiveKey>)
    case refused(Reason)
    /// A look-up is under way; the head is read again when it has been answered.
    case parked
}

extension Worker {
    /// Finds the key of the request being read.
    func authenticate(_ slot: Slot<Downstream>) -> Credential {
        guard requestHead.value.authorizationCount > 0 else { return .refused(.keyMissing) }
        guard requestHead.value.authorizationCount == 1 else { return .refused(.keyMalformed) }
        let block = plain.value
        guard case .token(let range) = BearerCredential.read(block.readable, requestHead.value.authorization)
        else { return .refused(.keyMalformed) }
        let token = block.span(range)
        let fingerprint = shared.sipKey.hash(token)
        let now = state.value.nowMicroseconds
        switch cache.find(fingerprint, nowMicroseconds: now) {
        case .known(let entry):
            if !slot.value.hasSeenLimits { metrics.cache.add(WorkerMetrics.CacheResult.hit.rawValue) }
            return standing(ofEntry: entry, token)
        case .unknown:
            metrics.cache.add(WorkerMetrics.CacheResult.unknown.rawValue)
            return .refused(.keyUnknown)
        case .stale(let entry):
            metrics.cache.add(WorkerMetrics.CacheResult.stale.rawValue)
            return revalidate(slot, token, fingerprint, entry)
        case .absent:
            metrics.cache.add(WorkerMetrics.CacheResult.miss.rawValue)
        }
        // Before what a look-up came to: a reload may have changed both since.
        if let refusal = refusal(ofShape: token) { return .refused(refusal) }
        let digest = digest(of: token)
        if let record = plan.staticKeys[digest] {
            guard let key = remember(record, fingerprint, verifiedAtMicroseconds: now) else {
                return .refused(.overloaded)
            }
            return standing(Int32(key.index))
        }
        switch slot.value.resolvedKey {
        case Downstream.resolvedUnknown: return .refused(.keyUnknown)
        case Downstream.resolvedUnavailable: return recall(fingerprint, digest)
        default: break
        }
        guard hasStore else {
            cache.insertUnknown(
                fingerprint, digest: digest, nowMicroseconds: now, expiresAtMicroseconds: now + unknownTTL())
            return .refused(.keyUnknown)
        }
        guard isStoreReady(for: digest) else { return recall(fingerprint, digest) }
        if let refusal = refuseToAsk(slot, now) { return .refused(refusal) }
        return lookUp(slot, fingerprint, digest, inFlightMax: HardLimits.unknownLookupsInFlight)
    }

    /// What is wrong with a token before anything is known of it.
    private func refusal(ofShape token: Span<UInt8>) -> Reason? {
        switch plan.keyFormat.classify(token) {
        case .wrongPrefix: return .keyMalformed
        case .generatedShapeInvalid: return .keyUnknown
        case .generatedShapeValid, .otherShape: return nil
        }
    }

    /// While the store is away: what another worker has learned of a key serves for `stale_for` as well.
    private func recall(_ fingerprint: Fingerprint, _ digest: Digest256) -> Credential {
        guard let known = shared.knownKeys.find(digest), mayServe(known.verifiedAtMicroseconds),
            let key = remember(
                known.record, fingerprint, verifiedAtMicroseconds: known.verifiedAtMicroseconds,
                isFresh: false)
        else { return .refused(.storeUnavailable) }
        return standing(Int32(key.index))
    }

    /// Whether a record that the store confirmed then may still be used without it.
    private func mayServe(_ verifiedAtMicroseconds: Int64) -> Bool {
        state.value.nowMicroseconds &- verifiedAtMicroseconds
            <= Int64(plan.configuration.keys.staleForSeconds) * 1_000_000
    }

    /// SHA-256 of a token, or its HMAC when a pepper is configured.
    func digest(of token: Span<UInt8>) -> Digest256 {
        if let pepper = shared.pepper { return Digest256(digester.hmacSHA256(key: pepper, token)) }
        return Digest256(digester.sha256(token))
    }

    /// The same for a key in the cache, which may have been compiled for an earlier configuration.
    private func standing(ofEntry entry: Int, _ token: Span<UInt8>) -> Credential {
        let index = cache.value(of: entry)
        guard let key = keys.occupant(at: Int(index)), key.value.generation != rows.generation else {
            return standing(index)
        }
        // The prefixes may be others as well.
        if let refusal = refusal(ofShape: token) { return .refused(refusal) }
        guard let fresh = recompile(entry) else { return .refused(.overloaded) }
        return standing(fresh)
    }

    /// Whether a key that exists may be used now.
    private func standing(_ index: Int32) -> Credential {
        guard let key = keys.occupant(at: Int(index)) else {
            preconditionFailure("the cache names only slots in use")
        }
        if key.value.refusal != .none { return .refused(key.value.refusal) }
        if state.value.wallMicroseconds >= key.value.expiresAtMicroseconds { return .refused(.keyExpired) }
        noteUse(key)
        return .key(key)
    }

    /// Tells whoever writes it down, once a minute, that a key is in use.
    private func noteUse(_ key: Slot<ActiveKey>) {
        let second = state.value.dateSecond
        if key.value.isReplaced {
            key.value.callsUnnoted += 1
            if key.value.callsUnnoted == 1 { replacedKeys.append(Int32(key.index)) }
        }
        guard second - key.value.seenSeconds >= HardLimits.seenSeconds else { return }
        key.value.seenSeconds = second
        let identity = key.value.identity
        shared.noteSeen(String(copying: identity.span(key.value.id)), atSeconds: second)
    }

    /// Once a second: tells how often keys were used that have been replaced.
    func noteReplacedKeys() {
        for index in replacedKeys {
            // A slot that has changed hands has told its calls before.
            if let key = keys.occupant(at: Int(index)) { noteCalls(key) }
        }
        replacedKeys.removeAll(keepingCapacity: true)
    }

    private func noteCalls(_ key: Slot<ActiveKey>) {
        guard key.value.callsUnnoted > 0 else { return }
        let identity = key.value.identity
        shared.noteCalls(
            String(copying: identity.span(key.value.id)), key.value.callsUnnoted,
            atSeconds: state.value.dateSecond)
        key.value.callsUnnoted = 0
    }

    /// An entry whose time is over is asked for again; while the store is away it serves for `stale_for`.
    private func revalidate(
        _ slot: Slot<Downstream>, _ token: Span<UInt8>, _ fingerprint: Fingerprint, _ entry: Int
    ) -> Credential {
        let digest = cache.digest(of: entry)
        let now = state.value.nowMicroseconds
        guard hasStore, plan.staticKeys[digest] == nil else {
            cache.refresh(entry, nowMicroseconds: now, expiresAtMicroseconds: now + keyTTL())
            return standing(ofEntry: entry, token)
        }
        let isAway = !isStoreReady(for: digest) || slot.value.resolvedKey == Downstream.resolvedUnavailable
        if isAway {
            guard mayServe(cache.verifiedAtMicroseconds(of: entry)) else {
                return .refused(.storeUnavailable)
            }
            return standing(ofEntry: entry, token)
        }
        if let refusal = refusal(ofShape: token) { return .refused(refusal) }
        // Just confirmed, for this call: an answer that took long is old when it comes, as the next would be.
        if slot.value.resolvedKey == Downstream.resolvedFound { return standing(ofEntry: entry, token) }
        return lookUp(slot, fingerprint, digest, inFlightMax: HardLimits.lookupsInFlight)
    }

    /// Guessed keys must not become Redis's load: a caller whose address has failed too often shares a small
    /// allowance with all like it, and all keys that are new to this worker share a large one.
    private func refuseToAsk(_ slot: Slot<Downstream>, _ now: Int64) -> Reason? {
        let prefix = callerAddress(slot).rateLimitPrefix
        if shared.failures.isBlocked(prefix: prefix, nowMicroseconds: now) {
            return store.value.guesses.take(nowMicroseconds: now) ? nil : .keyUnknown
        }
        return store.value.newKeys.take(nowMicroseconds: now) ? nil : .overloaded
    }

    /// Microseconds that a record is served before it is asked for again, spread so that keys learned
    /// together are not asked for together.
    func keyTTL() -> Int64 {
        spread(Int64(plan.configuration.keys.ttlSeconds) * 1_000_000)
    }

    func unknownTTL() -> Int64 {
        spread(Int64(plan.configuration.keys.unknownTTLSeconds) * 1_000_000)
    }

    /// A tenth more or less.
    private func spread(_ duration: Int64) -> Int64 {
        let fifth = max(1, duration / 5)
        return duration - fifth / 2 + Int64(state.value.random.next() % UInt64(fifth))
    }

    /// Puts a record into a slot and the slot into the cache.
    ///
    /// - Parameters:
    ///   - verifiedAtMicroseconds: when the store was asked for it.
    ///   - isFresh: false when it is to be asked for again as soon as the store can be.
    func remember(
        _ record: KeyRecord, _ fingerprint: Fingerprint, verifiedAtMicroseconds: Int64, isFresh: Bool = true
    ) -> Slot<ActiveKey>? {
        guard let key = keys.allocate(makeKey(record)) else { return nil }
        keyRecords.value[key.index] = record
        attachAccount(key, record.account)
        let now = state.value.nowMicroseconds
        let ttl = key.value.refusal == .none ? keyTTL() : unknownTTL()
        let inserted = cache.insert(
            fingerprint, digest: record.digest, value: Int32(key.index),
            nowMicroseconds: verifiedAtMicroseconds, expiresAtMicroseconds: isFresh ? now + ttl : 0)
        if let evicted = inserted.evictedValue { releaseCachedKey(at: Int(evicted)) }
        return key
    }

    /// Compiles a record. One that cannot be used is kept too, so that its key is refused without a look-up.
    func makeKey(_ record: KeyRecord) -> ActiveKey {
        var identity = Block.allocate(capacity: 4_096 + record.scopes.text.utf8.count)
        var writer = ByteWriter(identity)
        writer.append("X-Gateway-Key-Id: ")
        let idStart = writer.count
        writer.append(string: record.id)
        let id = idStart..<writer.count
        writer.append("\r\nX-Gateway-Account: ")
        let accountStart = writer.count
        writer.append(string: record.account)
        let account = accountStart..<writer.count
        writer.append("\r\nX-Gateway-Tier: ")
        let tierStart = writer.count
        writer.append(string: record.tier)
        let tierRange = tierStart..<writer.count
        writer.append("\r\nX-Gateway-Scopes: ")
        writer.append(string: record.scopes.text)
        writer.append("\r\n")
        identity.commit(writer)
        var refusal = Self.refusal(of: record.status)
        let tier = plan.tierNumbers[record.tier]
        let limits = limits(of: record)
        if tier == nil || limits == nil || writer.overflowed {
            refusal = .keyRecordUnusable
            shared.report(
                .warning,
                tier == nil
                    ? "key \(record.id) is refused: its record names the unknown tier \"\(record.tier)\""
                    : "key \(record.id) is refused: its record's limits cannot be read", every: 60)
            metrics.add(.recordProblems)
        }
        let windows = limits?.plan ?? LimitPlan([])
        return ActiveKey(
            digest: record.digest, generation: rows.generation, identity: identity, id: id, account: account,
            tierRange: tierRange, tier: Int32(tier ?? -1),
            grants: plan.scopeRequirements.grants(of: record.scopes),
            expiresAtMicroseconds: Self.expiry(of: record), refusal: refusal,
            accountHash: shared.hash(account: record.account),
            balanceHash: StableHash.of(record.account), accountSlot: -1,
            plan: windows,
            policy: windows.count > 0
                ? PolicyText(
                    tier: record.tier, plan: windows, legacy: plan.configuration.legacyRateLimitHeaders)
                : PolicyText(), isReplaced: record.rotatedTo != nil, round: store.value.round)
    }

    /// First microsecond of wall time at which a key is over.
    static func expiry(of record: KeyRecord) -> Int64 {
        guard let seconds = record.expiresAtSeconds else { return Int64.max }
        let (microseconds, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000)
        return overflow ? Int64.max : microseconds
    }

    static func refusal(of status: KeyRecord.Status) -> Reason {
        switch status {
        case .active: return .none
        case .disabled: return .keyDisabled
        case .revoked: return .keyRevoked
        }
    }

    /// The record's own limits, else its tier's; nil when neither can be read.
    func limits(of record: KeyRecord) -> LimitSpecification? {
        if let text = record.limits { return try? LimitSpecification.parse(text) }
        return plan.tierLimits[record.tier]
    }

    /// The cache has let go of a key.
    func releaseCachedKey(at index: Int) {
        if let key = keys.occupant(at: index), key.value.holders > 1 {
            key.value.isOrphan = true
            store.value.orphans[key.value.digest, default: 0] += 1
        }
        releaseKey(at: index)
    }

    /// The cache has let go of a key, or a call that used it has ended.
    func releaseKey(at index: Int) {
        guard let key = keys.occupant(at: index) else { return }
        key.value.holders -= 1
        guard key.value.holders == 0 else { return }
        if key.value.isOrphan {
            let left = (store.value.orphans[key.value.digest] ?? 1) - 1
            store.value.orphans[key.value.digest] = left == 0 ? nil : left
        }
        noteCalls(key)
        detachAccount(key)
        key.value.identity.deallocate()
        key.value.policy.deallocate()
        keyRecords.value[index] = nil
        keys.free(key)
    }

    /// The record behind a digest has changed: it is looked up again when its key is next used, and at once
    /// while calls under way use it.
    func forget(_ digest: Digest256) {
        markDirty(digest)
        shared.knownKeys.forget(digest)
        var isInUse = store.value.orphans[digest] != nil
        if let value = cache.invalidate(digest) {
            if let key = keys.occupant(at: Int(value)), key.value.holders > 1 { isInUse = true }
            releaseCachedKey(at: Int(value))
        }
        if isInUse { reexamine(digest) }
    }

    /// Changes may have been missed: nothing that is remembered counts as confirmed, answers under way may be
    /// older than what was missed, and the keys of calls under way are looked at again.
    func forgetAll() {
        cache.invalidateAll()
        for index in 0..<lookups.count where lookups[index].isUsed { lookups[index].isDirty = true }
        store.value.round &+= 1
        store.value.nextSweepMicroseconds = 0
    }
}
