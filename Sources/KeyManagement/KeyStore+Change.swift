package import Keys
import Reactor

// Changing what stands: every change is written only if the record is still the one that was read, so that
// of two programs that change it at once the later one looks again, and what is revoked stays revoked.

extension KeyStore {
    /// Changes some fields of a key.
    ///
    /// - Parameter version: `StoredKey.version` that the caller has seen; another one is `.changed`. nil
    ///   changes whatever stands.
    package func update(
        _ id: String, _ changes: KeyChanges, version: String? = nil, reason: String? = nil, by actor: Actor
    ) throws(KeyStoreProblem) -> StoredKey {
        if let tier = changes.tier { try check(tier: tier) }
        if let scopes = changes.scopes { try check(scopes: scopes) }
        if case .set(let limits) = changes.limits { try check(limits: limits) }
        if case .set(let name) = changes.name { try check(text: name, field: "name") }
        if case .set(let seconds) = changes.expiresAtSeconds { try check(expires: seconds) }
        let intent = Intent(action: "update", version: version, reason: reason, actor: actor)
        return try change(id, intent) { key throws(KeyStoreProblem) in
            try Self.refuseRevoked(key)
            var record = key.record
            if let tier = changes.tier { record.tier = tier }
            if let scopes = changes.scopes { record.scopes = scopes }
            Self.apply(changes.name, to: &record.name)
            Self.apply(changes.limits, to: &record.limits)
            Self.apply(changes.expiresAtSeconds, to: &record.expiresAtSeconds)
            return record
        }
    }

    /// Switches a key off; `enable` takes it back.
    package func disable(
        _ id: String, reason: String? = nil, version: String? = nil, by actor: Actor
    ) throws(KeyStoreProblem) -> StoredKey {
        try switchStatus(
            id, to: .disabled, Intent(action: "disable", version: version, reason: reason, actor: actor))
    }

    /// Switches a key on again.
    package func enable(
        _ id: String, reason: String? = nil, version: String? = nil, by actor: Actor
    ) throws(KeyStoreProblem) -> StoredKey {
        try switchStatus(
            id, to: .active, Intent(action: "enable", version: version, reason: reason, actor: actor))
    }

    private func switchStatus(
        _ id: String, to status: KeyRecord.Status, _ intent: Intent
    ) throws(KeyStoreProblem) -> StoredKey {
        try change(id, intent) { key throws(KeyStoreProblem) in
            try Self.refuseRevoked(key)
            var record = key.record
            record.status = status
            return record
        }
    }

    /// Takes a key away for good. One that is revoked already stays as it is.
    package func revoke(
        _ id: String, reason: String?, version: String? = nil, by actor: Actor
    ) throws(KeyStoreProblem) -> StoredKey {
        let intent = Intent(action: "revoke", version: version, reason: reason, actor: actor)
        return try change(id, intent, Self.revoked)
    }

    private static func revoked(_ key: StoredKey) throws(KeyStoreProblem) -> KeyRecord {
        guard key.record.status != .revoked else { return key.record }
        var record = key.record
        record.status = .revoked
        record.revokedAtSeconds = WallClock.nowSeconds()
        return record
    }

    /// Writes down that a key came in clear.
    ///
    /// - Parameters:
    ///   - known: those that need no other line.
    ///   - now: on the monotonic clock, in microseconds.
    /// - Returns: its record, nil when no such key exists.
    package func recordExposure(
        _ digest: Digest256, revoking: Bool, known: inout KnownExposures, by actor: Actor,
        at now: Int64 = MonotonicClock.nowMicroseconds()
    ) throws(KeyStoreProblem) -> KeyRecord? {
        guard let key = try find(digest: digest) else { return nil }
        guard !key.isStatic, !isMemory else { return key.record }
        let reason = "sent in clear"
        let isRevoked = key.record.status == .revoked
        if known.needsLine(digest, isRevoked: isRevoked, at: now) {
            let note = TrailNote(
                action: "exposed", id: key.record.id, account: key.record.account, actor: actor,
                reason: reason)
            _ = try commit([trailStep(note)])
            known.note(digest, isRevoked: isRevoked || revoking, at: now)
        }
        guard revoking, !isRevoked else { return key.record }
        let intent = Intent(action: "revoke", version: nil, reason: reason, actor: actor)
        func read() throws(KeyStoreProblem) -> StoredKey { try find(digest: digest) ?? key }
        return try change(read, intent, Self.revoked).record
    }

    // MARK: One change

    /// What is done and by whom.
    struct Intent {
        var action: String
        var version: String?
        var reason: String?
        var actor: Actor
    }

    private func change(
        _ id: String, _ intent: Intent, _ edit: (StoredKey) throws(KeyStoreProblem) -> KeyRecord
    ) throws(KeyStoreProblem) -> StoredKey {
        func read() throws(KeyStoreProblem) -> StoredKey { try find(id: id) }
        return try change(read, intent, edit)
    }

    private func change(
        _ read: () throws(KeyStoreProblem) -> StoredKey, _ intent: Intent,
        _ edit: (StoredKey) throws(KeyStoreProblem) -> KeyRecord
    ) throws(KeyStoreProblem) -> StoredKey {
        if let reason = intent.reason { try check(text: reason, field: "reason") }
        for _ in 0..<Self.attemptsMax {
            let key = try read()
            try checkChangeable(key, version: intent.version)
            let record = try edit(key)
            let difference = Difference(from: key.record, to: record)
            guard !difference.isEmpty else { return key }
            var steps: [Step] = []
            // A name is taken when it is new, and again by a key that comes back from expiry.
            let isBack = key.status() == .expired && difference.names.contains("expires_at")
            if difference.names.contains("name") || isBack, record.rotatedTo == nil,
                let claim = try claim(for: record, instead: nil)
            {
                steps.append(claim)
            }
            steps.append(
                trailStep(
                    TrailNote(
                        action: intent.action, id: record.id, account: record.account, actor: intent.actor,
                        reason: intent.reason, before: difference.before, after: difference.after)))
            // A revocation without a version never loses to a writer who keeps changing other things.
            let isFinal = record.status == .revoked && intent.version == nil
            steps.append(recordStep(key, difference, isFinal: isFinal))
            guard try commit(steps) != nil else { return key.changed(to: record, difference) }
        }
        throw .changed("other programs keep changing this key; try again")
    }

    /// The step that changes a record if it is still the one that was read.
    ///
    /// - Parameter isFinal: whether the change holds against whatever was written meanwhile.
    func recordStep(
        _ key: StoredKey, _ difference: Difference, part: Step.Part = .record, isFinal: Bool = false
    ) -> Step {
        let expected = KeyRecord.fieldNames.sorted().map { ($0, key.stored[$0] ?? "") }
        return Step(
            part, recordName(key.record.digest), check: isFinal ? .exists : .fields(expected),
            difference.writes)
    }

    func checkChangeable(_ key: StoredKey, version: String?) throws(KeyStoreProblem) {
        guard !key.isStatic else {
            throw .refused(
                "\(key.record.id) stands in the configuration: it is changed under keys.static there")
        }
        guard version == nil || version == key.version else {
            throw .changed("\(key.record.id) has been changed since it was read; read it again")
        }
    }

    static func refuseRevoked(_ key: StoredKey) throws(KeyStoreProblem) {
        guard key.record.status == .revoked else { return }
        throw .conflict(field: "status", "\(key.record.id) has been revoked, which is final")
    }

    private static func apply<Value>(_ setting: Setting<Value>, to field: inout Value?) {
        switch setting {
        case .keep: break
        case .clear: field = nil
        case .set(let value): field = value
        }
    }
}

/// What tells one form of a record from another.
struct Difference {
    /// The changed fields as they were; nil is absent.
    private(set) var before: [(name: String, value: String?)] = []
    /// The same fields as they are to be.
    private(set) var after: [(name: String, value: String?)] = []

    init(from old: KeyRecord, to new: KeyRecord) {
        let oldValues = Dictionary(uniqueKeysWithValues: old.fields.map { ($0.name, $0.value) })
        let newValues = Dictionary(uniqueKeysWithValues: new.fields.map { ($0.name, $0.value) })
        for name in KeyRecord.fieldNames.sorted() where oldValues[name] != newValues[name] {
            before.append((name, oldValues[name]))
            after.append((name, newValues[name]))
        }
    }

    var isEmpty: Bool { after.isEmpty }
    var names: Set<String> { Set(after.map(\.name)) }

    /// The commands that make it so.
    var writes: [[String]] {
        let set = after.flatMap { field in field.value.map { [field.name, $0] } ?? [] }
        let gone = after.filter { $0.value == nil }.map(\.name)
        return (set.isEmpty ? [] : [["HSET"] + set]) + (gone.isEmpty ? [] : [["HDEL"] + gone])
    }
}

extension StoredKey {
    /// The key after a change that has been written.
    func changed(to record: KeyRecord, _ difference: Difference) -> StoredKey {
        var fields = stored
        for field in difference.after { fields[field.name] = field.value }
        var key = StoredKey(
            record: record, lastSeenSeconds: lastSeenSeconds, isStatic: false,
            stored: fields.map { ($0.key, $0.value) })
        key.callsSinceRotation = callsSinceRotation ?? (record.rotatedTo == nil ? nil : 0)
        return key
    }
}
