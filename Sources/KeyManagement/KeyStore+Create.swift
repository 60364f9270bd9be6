import Keys
import Reactor
import Redis
import TLS

// Creating: everything is checked first, then written in one transaction whose last step is the record.

extension KeyStore {
    /// How long a creation that is sent again is recognised.
    private static let idempotencySeconds = 86_400
    /// How long a creation may be under way in a cluster before its traces count as left behind.
    private static let underWaySeconds: Int64 = 60

    /// Makes a key and writes it.
    ///
    /// - Parameter idempotency: makes the same creation, sent again within a day, return the key that was
    ///   made the first time; the key's text is gone by then.
    package func create(
        _ request: KeyRequest, idempotency: Idempotency? = nil, by actor: Actor
    ) throws(KeyStoreProblem) -> CreatedKey {
        guard !isMemory else { throw Self.memoryRefusal }
        let prepared = try prepare(request)
        let (key, isReplay) = try insert(prepared.record, idempotency, actor)
        if isReplay { return CreatedKey(key: key, secret: nil) }
        return CreatedKey(key: key, secret: prepared.secret)
    }

    private func insert(
        _ record: KeyRecord, _ idempotency: Idempotency?, _ actor: Actor
    ) throws(KeyStoreProblem) -> (key: StoredKey, isReplay: Bool) {
        for _ in 0..<Self.attemptsMax {
            var steps: [Step] = []
            var last: [Step] = []
            if let idempotency {
                let (name, request) = try names(of: idempotency)
                if let earlier = try replay(name, request) { return (earlier, true) }
                let seconds = spreads ? Int(Self.underWaySeconds) : Self.idempotencySeconds
                let value = "\(request) \(record.id)"
                steps.append(
                    Step(
                        .idempotency, name, check: .absent, [["SET", value, "EX", "\(seconds)"]],
                        undo: [["DEL"]]))
                if spreads {
                    last.append(Step(.idempotency, name, [["EXPIRE", "\(Self.idempotencySeconds)"]]))
                }
            }
            if let claim = try claim(for: record, instead: nil) { steps.append(claim) }
            let note = TrailNote(
                action: "create", id: record.id, account: record.account, actor: actor,
                after: record.fields.map { ($0.name, $0.value) })
            steps.append(trailStep(note))
            steps += recordSteps(record)
            guard let failed = try commit(steps + last) else {
                let key = StoredKey(
                    record: record, lastSeenSeconds: nil, isStatic: false, stored: record.fields)
                return (key, false)
            }
            // Another program was faster at the name, or with the same creation: look again.
            guard failed == .idempotency || failed == .name else {
                throw .unavailable("the store has a key of the id \(record.id) already")
            }
        }
        throw .changed("other programs keep changing the same names; try again")
    }

    /// The ways by which a new key is found, and then its record.
    func recordSteps(_ record: KeyRecord) -> [Step] {
        let digest = record.digest.hexadecimal
        return [
            Step(.id, idName(record.id), check: .absent, [["SET", digest]], undo: [["DEL"]]),
            Step(
                .index, indexName, [["ZADD", "\(record.createdAtSeconds ?? 0)", record.id]],
                undo: [["ZREM", record.id]]),
            Step(
                .record, recordName(record.digest), check: .absent,
                [["HSET"] + record.fields.flatMap { [$0.name, $0.value] }], undo: [["DEL"]]),
        ]
    }

    // MARK: Idempotency

    private func names(of idempotency: Idempotency) throws(KeyStoreProblem) -> (name: String, request: String)
    {
        guard (1...Idempotency.bytesMax).contains(idempotency.key.utf8.count),
            KeyRecord.isPrintable(idempotency.key)
        else {
            throw .invalid(
                field: "idempotency_key", "this is 1 to \(Idempotency.bytesMax) printable bytes")
        }
        do {
            let digester = try Digester()
            let name = Digest256(digester.sha256(Array(idempotency.key.utf8).span))
            let request = Digest256(digester.sha256(idempotency.request.span))
            return ("\(prefix)idempotency:\(name.hexadecimal)", request.hexadecimal)
        } catch {
            throw .unavailable(error.message)
        }
    }

    /// The key that the same creation made before.
    private func replay(_ name: String, _ request: String) throws(KeyStoreProblem) -> StoredKey? {
        guard let value = try run(["GET", name]).text else { return nil }
        guard value.hasPrefix(request + " ") else {
            throw .conflict(
                field: "idempotency_key", "it was used for another request; use a new one for each key")
        }
        do {
            return try find(id: String(value.dropFirst(request.count + 1)))
        } catch .notFound {
            throw .conflict(
                field: "idempotency_key", "the creation under it has not come to an end; try again later")
        }
    }

    // MARK: Names

    /// The step that makes a record's name its own, nil when it needs none.
    ///
    /// - Parameter other: an id that may hold the name: the key that this one replaces.
    /// - Throws: `.conflict` when another usable key of the account has the name.
    func claim(for record: KeyRecord, instead other: String?) throws(KeyStoreProblem) -> Step? {
        guard let name = record.name, record.account != record.id else { return nil }
        let field = Self.nameField(record.account, name)
        let held = try run(["HGET", namesName, field]).text
        if let held, let holder = Self.holder(held) {
            if holder.id == record.id { return nil }
            if holder.id != other, try isHeld(record, holder, replacing: other) {
                throw .conflict(
                    field: "name", "the account \(record.account) has a key of this name: \(holder.id)")
            }
        }
        let value = "\(WallClock.nowSeconds()) \(record.id)"
        return Step(
            .name, namesName, check: .fields([(field, held ?? "")]), [["HSET", field, value]],
            undo: [held.map { ["HSET", field, $0] } ?? ["HDEL", field]])
    }

    /// Neither half can hold this separator.
    static func nameField(_ account: String, _ name: String) -> String { "\(account)\u{1f}\(name)" }

    private static func holder(_ text: String) -> (since: Int64, id: String)? {
        guard let space = text.firstIndex(of: " "), let since = Int64(text[..<space]) else { return nil }
        return (since, String(text[text.index(after: space)...]))
    }

    /// Whether the holder of a name still has it. What an unfinished creation left behind does not count, and
    /// what an unfinished rotation of the same key left behind does not even for a while.
    private func isHeld(
        _ record: KeyRecord, _ holder: (since: Int64, id: String), replacing other: String?
    ) throws(KeyStoreProblem) -> Bool {
        do {
            let key = try find(id: holder.id)
            guard key.record.account == record.account, key.record.name == record.name else { return false }
            // A successor that never came into use does not stand against another try.
            if let other, key.record.rotatedFrom == other, key.status() != .active { return false }
            // The name of a key that was replaced went to its successor.
            return key.record.rotatedTo == nil && [.active, .disabled].contains(key.status())
        } catch .notFound {
            return spreads && other == nil && WallClock.nowSeconds() - holder.since < Self.underWaySeconds
        } catch .refused {
            return false
        }
    }
}
