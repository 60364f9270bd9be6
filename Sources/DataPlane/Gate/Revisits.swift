import Keys
import Limits
import Reactor
import Redis

// A call may outlive its key: a stream, an upgraded connection, a slow download. When the record of a key in
// use changes it is looked up at once, and calls whose key may no longer be used are ended. When changes may
// have been missed, every key in use is looked up, a few at a time. That a key has expired is noticed by a
// walk over the calls under way, four times a second.

extension Worker {
    /// Has the record of a key in use looked at again.
    func revisit(_ digest: Digest256) {
        guard hasStore, plan.staticKeys[digest] == nil else { return }
        store.value.revisits.insert(digest)
        sendRevisits()
    }

    /// The same for a key whose record may have changed with the configuration, which is all there is to ask
    /// about declared keys, and without a store about any.
    func reexamine(_ digest: Digest256) {
        if let record = plan.staticKeys[digest] {
            concludeRevisit(digest, .record(record))
        } else if hasStore {
            revisit(digest)
        } else {
            concludeRevisit(digest, .unknown)
        }
    }

    /// Looks up as many of the records that wait as may be under way. Those that cannot be asked for now let
    /// others pass: one master that is away keeps back its own keys only.
    private func sendRevisits() {
        guard !store.value.revisits.isEmpty, isCluster || firstLane?.isReady ?? false else { return }
        var underWay = 0
        for index in 0..<lookups.count where lookups[index].isUsed && lookups[index].isRevisit {
            underWay += 1
        }
        var free = 0
        while underWay < HardLimits.revisitsInFlight, let digest = store.value.revisits.first {
            while free < lookups.count, lookups[free].isUsed { free += 1 }
            guard free < lookups.count else { return }
            store.value.revisits.remove(digest)
            guard let lane = lane(of: digest), lane.isReady, lane.hasRoomForLookup else {
                store.value.revisitsPutOff.insert(digest)
                continue
            }
            lookups[free] = KeyLookup(
                digest: digest, isUsed: true, isRevisit: true,
                startedMicroseconds: state.value.nowMicroseconds)
            ask(lane, free)
            underWay += 1
        }
    }

    /// The record has come: its calls go on, or end.
    func concludeRevisit(_ digest: Digest256, _ answer: RecordAnswer) {
        switch answer {
        case .unavailable: store.value.revisitsPutOff.insert(digest)
        case .unknown: endCalls(of: digest, .keyUnknown)
        case .unusable: endCalls(of: digest, .keyRecordUnusable)
        case .record(let record):
            var reason = Self.refusal(of: record.status)
            if reason == .none, let expires = record.expiresAtSeconds,
                state.value.wallMicroseconds / 1_000_000 >= expires
            {
                reason = .keyExpired
            }
            if reason == .none, limits(of: record) == nil { reason = .keyRecordUnusable }
            if reason != .none {
                endCalls(of: digest, reason)
            } else {
                setExpiry(of: digest, Self.expiry(of: record))
            }
        }
        sendRevisits()
    }

    private func endCalls(of digest: Digest256, _ reason: Reason) {
        for index in 0..<exchanges.highWater {
            guard let exchange = exchanges.occupant(at: index), !exchange.value.isDead,
                exchange.value.key >= 0, key(at: exchange.value.key).value.digest == digest
            else { continue }
            failExchange(exchange, reason)
            endStep()
        }
    }

    /// Calls under way end with their key, also when its end was set while they ran.
    private func setExpiry(of digest: Digest256, _ expiresAtMicroseconds: Int64) {
        for index in 0..<exchanges.highWater {
            guard let exchange = exchanges.occupant(at: index), !exchange.value.isDead,
                exchange.value.key >= 0
            else { continue }
            let key = key(at: exchange.value.key)
            if key.value.digest == digest { key.value.expiresAtMicroseconds = expiresAtMicroseconds }
        }
    }

    /// Goes on with the walk over the calls under way: keys that have expired, and keys that are to be looked
    /// at again.
    func sweepCalls() {
        let now = state.value.nowMicroseconds
        if store.value.sweepPosition >= exchanges.highWater {
            guard now >= store.value.nextSweepMicroseconds else { return }
            store.value.nextSweepMicroseconds = now + HardLimits.sweepMicroseconds
            store.value.sweepPosition = 0
            store.value.revisits.formUnion(store.value.revisitsPutOff)
            store.value.revisitsPutOff = []
            // While changes are not heard, what was confirmed a moment ago is in doubt again.
            if hasStore, now > shared.changesHeardMicroseconds + HardLimits.doubtMicroseconds,
                now >= store.value.roundMicroseconds + HardLimits.doubtMicroseconds
            {
                store.value.round &+= 1
                store.value.roundMicroseconds = now
            }
        }
        let end = min(exchanges.highWater, store.value.sweepPosition + HardLimits.sweepStep)
        let latest = state.value.wallMicroseconds - HardLimits.expiryGraceMicroseconds
        while store.value.sweepPosition < end {
            let index = store.value.sweepPosition
            store.value.sweepPosition += 1
            guard let exchange = exchanges.occupant(at: index), !exchange.value.isDead,
                exchange.value.key >= 0
            else { continue }
            let key = key(at: exchange.value.key)
            if key.value.expiresAtMicroseconds <= latest {
                failExchange(exchange, .keyExpired)
                endStep()
            } else if key.value.round != store.value.round {
                key.value.round = store.value.round
                revisit(key.value.digest)
            }
        }
        sendRevisits()
    }
}
