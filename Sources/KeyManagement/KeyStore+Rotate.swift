import Keys
import Reactor
import Redis

// Replacing a key: a new one with every setting of the old, and an end for the old. On one Redis both are
// one script. In a cluster the order is such that, wherever the program dies, the old key still works and
// the new one does not work before the old one names it: the new record is written switched off, the old one
// points to it, the new one is switched on, and only then does the old one get its end.

extension KeyStore {
    /// Longest overlap: a year.
    package static let overlapSecondsMax: Int64 = 366 * 86_400

    /// Replaces a key by a new one with the same settings. Both are valid during the overlap, which ends at
    /// the old key's own expiry at the latest.
    ///
    /// The new key gets the lifetime that the old one was made for, beginning now.
    ///
    /// - Parameters:
    ///   - overlapSeconds: 0 (the old key ends now) to a year.
    ///   - expiresAtSeconds: an expiry of its own for the new key; `clear` is never.
    ///   - version: `StoredKey.version` of the old key that the caller has seen; nil rotates whatever stands.
    package func rotate(
        _ id: String, overlapSeconds: Int64, expiresAtSeconds: Setting<Int64> = .keep,
        reason: String? = nil, version: String? = nil, by actor: Actor
    ) throws(KeyStoreProblem) -> RotatedKey {
        guard !isMemory else { throw Self.memoryRefusal }
        guard (0...Self.overlapSecondsMax).contains(overlapSeconds) else {
            throw .invalid(field: "overlap", "this is 0 to \(Self.overlapSecondsMax) seconds")
        }
        if case .set(let seconds) = expiresAtSeconds { try check(expires: seconds) }
        if let reason { try check(text: reason, field: "reason") }
        let secret = makeSecret()
        let digest = try digest(of: secret)
        let hint = secret.hint
        for _ in 0..<Self.attemptsMax {
            let old = try find(id: id)
            try checkChangeable(old, version: version)
            let successor = try checkRotatable(old)
            var fresh = KeyRecord(digest: digest, tier: old.record.tier)
            fresh.account = old.record.account
            fresh.scopes = old.record.scopes
            fresh.name = old.record.name
            fresh.limits = old.record.limits
            fresh.hint = hint
            fresh.createdAtSeconds = WallClock.nowSeconds()
            fresh.expiresAtSeconds = Self.expiry(of: successor ?? old.record, expiresAtSeconds)
            fresh.rotatedFrom = old.record.id
            var ended = old.record
            ended.rotatedTo = fresh.id
            ended.expiresAtSeconds = min(
                old.record.expiresAtSeconds ?? .max, WallClock.nowSeconds() + overlapSeconds)
            let intent = Intent(action: "rotate", version: version, reason: reason, actor: actor)
            guard let written = try write(fresh, old, ended, intent) else { continue }
            let key = StoredKey(
                record: fresh, lastSeenSeconds: nil, isStatic: false, stored: fresh.fields)
            return RotatedKey(key: key, old: written.old, secret: secret, warning: written.warning)
        }
        throw .changed("other programs keep changing this key; try again")
    }

    /// Adds to the calls of keys that have been replaced, by id.
    package func addCalls(_ calls: [String: Int64]) throws(KeyStoreProblem) {
        let values = try runAll(calls.map { ["HINCRBY", "\(prefix)calls", $0.key, "\($0.value)"] })
        for value in values {
            if case .error(let text) = value { throw .unavailable(text) }
        }
    }

    /// A key can be replaced while it is in use, and again when its successor has never come into use.
    ///
    /// - Returns: that successor, which has the lifetime that the key had before it got its end.
    private func checkRotatable(_ key: StoredKey) throws(KeyStoreProblem) -> KeyRecord? {
        let id = key.record.id
        switch key.status() {
        case .revoked: try Self.refuseRevoked(key)
        case .expired: throw .conflict(field: "expires_at", "\(id) has expired; create a new key")
        case .disabled: throw .conflict(field: "status", "\(id) is disabled; enable it first")
        case .active: break
        }
        guard let successor = key.record.rotatedTo else { return nil }
        do {
            let found = try find(id: successor)
            guard found.status() == .active else {
                return found.record.rotatedFrom == id ? found.record : nil
            }
        } catch .notFound {
            return nil
        }
        throw .conflict(
            field: "rotated_to", "\(id) has been replaced by \(successor) already; rotate that one")
    }

    private static func expiry(of old: KeyRecord, _ setting: Setting<Int64>) -> Int64? {
        switch setting {
        case .set(let seconds): return seconds
        case .clear: return nil
        case .keep:
            guard let expires = old.expiresAtSeconds else { return nil }
            // Without a beginning there is no lifetime to repeat.
            guard let created = old.createdAtSeconds, created < expires else { return expires }
            return min(WallClock.nowSeconds() + (expires - created), secondsMax)
        }
    }

    /// - Returns: the old key as it stands then, and what could not be done to it; nil when another program
    ///   was faster and nothing was done.
    private func write(
        _ fresh: KeyRecord, _ old: StoredKey, _ ended: KeyRecord, _ intent: Intent
    ) throws(KeyStoreProblem) -> (old: StoredKey, warning: String?)? {
        let difference = Difference(from: old.record, to: ended)
        var steps: [Step] = []
        if let claim = try claim(for: fresh, instead: old.record.id) { steps.append(claim) }
        steps.append(
            trailStep(
                TrailNote(
                    action: "rotate", id: old.record.id, account: old.record.account, actor: intent.actor,
                    reason: intent.reason, before: difference.before, after: difference.after)))
        steps.append(
            trailStep(
                TrailNote(
                    action: "create", id: fresh.id, account: fresh.account, actor: intent.actor,
                    reason: intent.reason, after: fresh.fields.map { ($0.name, $0.value) })))
        guard spreads else {
            let all = steps + recordSteps(fresh) + [recordStep(old, difference, part: .old)]
            return try commit(all) == nil ? (old.changed(to: ended, difference), nil) : nil
        }
        var waiting = fresh
        waiting.status = .disabled
        var named = old.record
        named.rotatedTo = fresh.id
        let naming = Difference(from: old.record, to: named)
        var second = recordStep(old, naming, part: .old)
        second.undo = Difference(from: named, to: old.record).writes
        steps += recordSteps(waiting)
        steps.append(second)
        steps.append(
            Step(
                .record, recordName(fresh.digest),
                check: .fields([("status", "disabled"), ("revoked_at", "")]),
                [["HSET", "status", "active"]]))
        guard try commit(steps) == nil else { return nil }
        return end(old.changed(to: named, naming), successor: fresh.id, atSeconds: ended.expiresAtSeconds)
    }

    /// Gives a key that has been replaced its end. The new one works by then, and its text is nowhere else:
    /// so no failure here is one of the whole.
    private func end(
        _ replaced: StoredKey, successor: String, atSeconds end: Int64?
    ) -> (old: StoredKey, warning: String?) {
        var old = replaced
        let id = old.record.id
        var why = "other programs keep changing it"
        for _ in 0..<Self.attemptsMax {
            guard old.record.rotatedTo == successor else {
                why = "another program has replaced it"
                break
            }
            var ended = old.record
            ended.expiresAtSeconds = min(ended.expiresAtSeconds ?? .max, end ?? .max)
            let difference = Difference(from: old.record, to: ended)
            if difference.isEmpty || old.status() == .revoked { return (old, nil) }
            do throws(KeyStoreProblem) {
                if try commit([recordStep(old, difference, part: .old)]) == nil {
                    return (old.changed(to: ended, difference), nil)
                }
                // Whoever changed it meanwhile has not said that it is to live on.
                guard let found = try find(digest: old.record.digest) else { return (old, nil) }
                old = found
            } catch {
                why = error.text
                break
            }
        }
        return (old, "\(id) is replaced by \(successor), but has not got its end: \(why); set its expiry")
    }
}
