import Configuration
import HTTPWire
import Keys
import Reactor
import Redis

/// What a look-up came to.
enum LookupResult { case found, unknown, unavailable }

/// What the store says of a record.
enum RecordAnswer {
    case record(KeyRecord)
    /// There is none.
    case unknown
    /// There is one that refuses its key, and why.
    case unusable(String)
    /// The store cannot tell at the moment.
    case unavailable
}

extension Worker {
    /// Asks Redis for a key, once however many callers present it.
    ///
    /// - Parameter inFlightMax: look-ups beyond which this one is refused.
    func lookUp(
        _ slot: Slot<Downstream>, _ fingerprint: Fingerprint, _ digest: Digest256, inFlightMax: Int
    ) -> Credential {
        guard let lane = lane(of: digest), lane.takesCalls else { return .refused(.storeUnavailable) }
        var free = -1
        for index in 0..<lookups.count {
            if !lookups[index].isUsed {
                if free < 0, index < inFlightMax { free = index }
            } else if !lookups[index].isRevisit, lookups[index].fingerprint == fingerprint {
                metrics.cache.add(WorkerMetrics.CacheResult.coalesced.rawValue)
                let fits = addWaiter(slot.reference, to: &lookups[index].waiters)
                return fits ? .parked : .refused(.overloaded)
            }
        }
        guard free >= 0, lane.hasRoomForLookup else { return .refused(.overloaded) }
        lookups[free] = KeyLookup(
            fingerprint: fingerprint, digest: digest, isUsed: true, generation: rows.generation,
            startedMicroseconds: state.value.nowMicroseconds)
        guard addWaiter(slot.reference, to: &lookups[free].waiters) else {
            lookups[free].isUsed = false
            return .refused(.overloaded)
        }
        ask(lane, free)
        return .parked
    }

    /// Asks for a record, as soon as the lane is up.
    ///
    /// - Parameter asking: after `ASK`: the slot is on its way to this master.
    func ask(_ lane: StoreLane, _ number: Int, asking: Bool = false) {
        guard lane.isReady else {
            lane.state.value.waitingLookups.append(Int32(number))
            return
        }
        if asking { writeAsking(lane) }
        let connection = lane.connection
        var writer = ByteWriter(connection.output)
        CommandWriter.begin(2, into: &writer)
        CommandWriter.append("HGETALL", into: &writer)
        let hexadecimal = lookups[number].digest.hexadecimalBytes
        writer.append(byte: 0x24)
        writer.append(decimal: Int64(storePrefix.count + 4 + Digest256.hexadecimalCount))
        writer.append("\r\n")
        writer.append(storePrefix.readable)
        writer.append("key:")
        writer.append(hexadecimal.span)
        writer.append("\r\n")
        connection.output.commit(writer)
        lane.state.value.pending.append(
            PendingCommand(
                kind: .lookup, number: Int32(number), sentMicroseconds: MonotonicClock.nowMicroseconds()))
    }

    /// A record has come, or the news that there is none.
    ///
    /// - Parameter askedMicroseconds: the record is at least as new as that.
    func takeRecord(_ reply: Reply, _ number: Int, askedMicroseconds asked: Int64) {
        if lookups[number].isDirty {
            // The answer may be older than the change: asked again, and used for nothing.
            guard !isTooLate(lookups[number].startedMicroseconds),
                let lane = lane(of: lookups[number].digest), lane.isReady, lane.hasRoomForLookup
            else {
                lookupIsLost(number)
                return
            }
            lookups[number].isDirty = false
            ask(lane, number)
            return
        }
        let digest = lookups[number].digest
        let fingerprint = lookups[number].fingerprint
        // It may have been declared meanwhile.
        let declared = plan.staticKeys[digest]
        let answer = declared.map { .record($0) } ?? read(reply, digest)
        if lookups[number].isRevisit {
            lookups[number].isUsed = false
            concludeRevisit(digest, answer)
            return
        }
        switch answer {
        case .record(let record):
            if declared == nil { shared.knownKeys.insert(record, verifiedAtMicroseconds: asked) }
            let key = remember(record, fingerprint, verifiedAtMicroseconds: asked)
            // Its shape was judged by the configuration of then.
            key?.value.generation = lookups[number].generation
            finishLookup(number, key == nil ? .unavailable : .found)
        case .unknown:
            rememberUnknown(fingerprint, digest, asked)
            finishLookup(number, .unknown)
        case .unusable(let why):
            // A record that cannot be used refuses its key, and says why once a minute.
            metrics.add(.recordProblems)
            shared.report(
                .warning, "the record \(KeyRecord.defaultID(of: digest)) is refused: \(why)", every: 60)
            rememberUnknown(fingerprint, digest, asked)
            finishLookup(number, .unknown)
        case .unavailable:
            finishLookup(number, .unavailable)
        }
    }

    private func read(_ reply: Reply, _ digest: Digest256) -> RecordAnswer {
        switch reply.kind {
        case .array where reply.count == 0:
            return .unknown
        case .array where reply.count % 2 == 0:
            var fields: [(name: String, value: String)] = []
            for index in stride(from: 0, to: reply.count, by: 2) {
                fields.append((reply.element(index).text, reply.element(index + 1).text))
            }
            do {
                let record = try KeyRecord(digest: digest, fields: fields) { plan.tierNumbers[$0] != nil }
                return .record(record)
            } catch {
                return .unusable(error.text)
            }
        case .error where reply.text.hasPrefix("WRONGTYPE"):
            return .unusable(reply.text)
        case .error:
            // Nothing is known of the record, and so nothing against it.
            if !StoreRefusal(reply).isOutage {
                shared.report(.warning, "store: Redis refuses HGETALL: \(reply.text)", every: 60)
            }
            return .unavailable
        default:
            shared.report(.warning, "store: the answer to HGETALL is no hash", every: 60)
            return .unavailable
        }
    }

    private func rememberUnknown(_ fingerprint: Fingerprint, _ digest: Digest256, _ asked: Int64) {
        shared.knownKeys.forget(digest)
        let expires = state.value.nowMicroseconds + unknownTTL()
        let evicted = cache.insertUnknown(
            fingerprint, digest: digest, nowMicroseconds: asked, expiresAtMicroseconds: expires)
        if let evicted { releaseCachedKey(at: Int(evicted)) }
    }

    /// The connection broke before the answer came.
    func lookupIsLost(_ number: Int) {
        if lookups[number].isRevisit {
            lookups[number].isUsed = false
            store.value.revisitsPutOff.insert(lookups[number].digest)
        } else {
            finishLookup(number, .unavailable)
        }
    }

    /// Lets everybody who waited for a look-up go on.
    func finishLookup(_ number: Int, _ result: LookupResult) {
        while let reference = removeWaiter(from: &lookups[number].waiters) {
            guard let slot = downstreams.lookup(reference), !slot.value.isDead,
                slot.value.request == .awaitingKey
            else { continue }
            switch result {
            case .found: slot.value.resolvedKey = Downstream.resolvedFound
            case .unknown: slot.value.resolvedKey = Downstream.resolvedUnknown
            case .unavailable: slot.value.resolvedKey = Downstream.resolvedUnavailable
            }
            slot.value.request = .head
            resumeLater(slot)
        }
        lookups[number].isUsed = false
    }

    /// The record of a look-up under way has changed.
    func markDirty(_ digest: Digest256) {
        for index in 0..<lookups.count where lookups[index].isUsed && lookups[index].digest == digest {
            lookups[index].isDirty = true
        }
    }
}
