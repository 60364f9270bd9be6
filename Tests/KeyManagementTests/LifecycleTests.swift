import KeyManagement
import Keys
import Reactor
import Redis
import TestSupport
import Testing

/// Every rule holds on one Redis, where a change is one script, and where names are spread over a cluster.
@Suite("Life of a key", .enabled(if: RedisServer.isAvailable))
struct LifecycleTests {
    static let actor = Scene.actor

    @Test("an update changes what it names, and the trail has before and after", arguments: [false, true])
    func update(_ spreads: Bool) throws {
        let scene = try Scene(spreads: spreads)
        let expires = WallClock.nowSeconds() + 3_600
        let (record, _) = try scene.create(try Scene.request(expires: expires, limits: "5/second"))
        var changes = KeyChanges()
        changes.tier = "standard"
        changes.scopes = ScopeSet(text: "a b")
        changes.name = .set("other")
        changes.limits = .clear
        changes.expiresAtSeconds = .clear
        let updated = try scene.store.update(record.id, changes, reason: "smaller plan", by: Self.actor)
        let found = try scene.store.find(id: record.id)
        #expect(updated.record == found.record && updated.version == found.version)
        var expected = record
        expected.tier = "standard"
        expected.scopes = try #require(ScopeSet(text: "a b"))
        expected.name = "other"
        expected.limits = nil
        expected.expiresAtSeconds = nil
        #expect(found.record == expected)
        let line = try #require(try scene.store.trail(limit: 1).entries.first)
        #expect(line.action == "update" && line.reason == "smaller plan" && line.id == record.id)
        #expect(
            line.before
                == "{\"expires_at\":\(expires),\"limits\":\"5/second\",\"name\":\"ci\","
                + "\"scopes\":[\"projects:read\"],\"tier\":\"pro\"}")
        #expect(
            line.after
                == "{\"expires_at\":null,\"limits\":null,\"name\":\"other\",\"scopes\":[\"a\",\"b\"],"
                + "\"tier\":\"standard\"}")
    }

    @Test("who saw an older record changes nothing", arguments: [false, true])
    func conflict(_ spreads: Bool) throws {
        let scene = try Scene(spreads: spreads)
        let (record, _) = try scene.create(try Scene.request())
        let seen = try scene.store.find(id: record.id).version
        var changes = KeyChanges()
        changes.tier = "standard"
        let updated = try scene.store.update(record.id, changes, version: seen, by: Self.actor)
        #expect(updated.version != seen)
        changes.tier = "pro"
        let late = problem { _ = try scene.store.update(record.id, changes, version: seen, by: Self.actor) }
        guard case .changed = late else {
            Issue.record("\(late as Any)")
            return
        }
        #expect(try scene.store.find(id: record.id).record.tier == "standard")
        let store = scene.store
        let attempts: [() throws -> Void] = [
            { _ = try store.disable(record.id, version: seen, by: Self.actor) },
            { _ = try store.enable(record.id, version: seen, by: Self.actor) },
            { _ = try store.revoke(record.id, reason: nil, version: seen, by: Self.actor) },
            { _ = try store.rotate(record.id, overlapSeconds: 1, version: seen, by: Self.actor) },
        ]
        for attempt in attempts { #expect(problem(attempt) == late) }
    }

    @Test("a switch goes both ways; what is revoked never comes back", arguments: [false, true])
    func switching(_ spreads: Bool) throws {
        let scene = try Scene(spreads: spreads)
        let (record, secret) = try scene.create(try Scene.request())
        let bytes = Array(secret.utf8)
        #expect(
            try scene.store.disable(record.id, reason: "pause", by: Self.actor).record.status == .disabled)
        #expect(try scene.store.verify(bytes.span).verdict == .disabled)
        #expect(try scene.store.enable(record.id, by: Self.actor).record.status == .active)
        #expect(try scene.store.verify(bytes.span).verdict == .valid)
        _ = try scene.store.revoke(record.id, reason: "leak", by: Self.actor)
        let trail = try scene.store.trail().entries.count
        // Again is no failure, and no second line.
        _ = try scene.store.revoke(record.id, reason: "leak", by: Self.actor)
        #expect(try scene.store.trail().entries.count == trail)
        var changes = KeyChanges()
        changes.name = .set("x")
        let attempts: [() throws -> Void] = [
            { _ = try scene.store.enable(record.id, by: Self.actor) },
            { _ = try scene.store.disable(record.id, by: Self.actor) },
            { _ = try scene.store.update(record.id, changes, by: Self.actor) },
            { _ = try scene.store.rotate(record.id, overlapSeconds: 60, by: Self.actor) },
        ]
        for attempt in attempts { #expect(problem(attempt)?.field == "status") }
        // A program that writes the record without looking.
        _ = try scene.redis.command([
            "HSET", "gateway:key:\(record.digest.hexadecimal)", "status", "active", "tier", "pro",
        ])
        #expect(try scene.store.verify(bytes.span).verdict == .revoked)
        #expect(try scene.ids(KeyFilter(status: .revoked)) == [record.id])
    }

    @Test("of writers that race with a revocation none brings the key back")
    func race() throws {
        let scene = try Scene()
        for round in 0..<10 {
            let (record, _) = try scene.create(try Scene.request(name: "race \(round)"))
            let configuration = scene.configuration
            let threads = try (0..<3).map { number in
                try Thread.start(name: "writer") {
                    guard let store = try? KeyStore(configuration, timeoutMilliseconds: 5_000) else { return }
                    for step in 0..<20 {
                        if number == 0, step == 10 {
                            _ = try? store.revoke(record.id, reason: nil, by: Self.actor)
                        } else if step % 2 == 0 {
                            _ = try? store.disable(record.id, by: Self.actor)
                        } else {
                            _ = try? store.enable(record.id, by: Self.actor)
                        }
                    }
                }
            }
            for thread in threads { thread.join() }
            let fields = try scene.fields(record.digest.hexadecimal)
            #expect(fields["status"] == "revoked" && fields["revoked_at"] != nil)
            let line = try #require(try scene.store.trail(TrailFilter(id: record.id), limit: 1).entries.first)
            #expect(line.action == "revoke")
        }
    }

    @Test("a rotation copies every setting and ends the old key in time", arguments: [false, true])
    func rotate(_ spreads: Bool) throws {
        let scene = try Scene(spreads: spreads)
        let now = WallClock.nowSeconds()
        let (old, secret) = try scene.create(
            try Scene.request(scopes: "a b:*", expires: now + 1_000, limits: "7/second"))
        let rotated = try scene.store.rotate(old.id, overlapSeconds: 600, reason: "yearly", by: Self.actor)
        let fresh = rotated.key.record
        let (replaced, version) = (rotated.old.record, rotated.key.version)
        let secrets = [secret, rotated.secret.reveal()]
        #expect(fresh.id != old.id && fresh.rotatedFrom == old.id && fresh.status == .active)
        #expect(fresh.account == old.account && fresh.tier == old.tier && fresh.scopes == old.scopes)
        #expect(fresh.limits == old.limits && fresh.name == old.name)
        // The lifetime begins anew.
        #expect((now + 999...now + 1_010).contains(try #require(fresh.expiresAtSeconds)))
        let end = try #require(replaced.expiresAtSeconds)
        #expect((now + 600...now + 610).contains(end) && replaced.rotatedTo == fresh.id)
        #expect(try scene.store.find(id: old.id).record == replaced)
        #expect(try scene.store.find(id: fresh.id).record == fresh)
        #expect(try scene.store.find(id: fresh.id).version == version)
        for text in secrets {
            let bytes = Array(text.utf8)
            #expect(try scene.store.verify(bytes.span).verdict == .valid)
        }
        let lines = try scene.store.trail().entries.prefix(2)
        #expect(lines.map(\.action) == ["create", "rotate"] && lines.map(\.id) == [fresh.id, old.id])
        #expect(lines.allSatisfy { $0.reason == "yearly" })
        // The successor is in use: the old one is not replaced a second time.
        let again = problem { _ = try scene.store.rotate(old.id, overlapSeconds: 1, by: Self.actor) }
        #expect(again?.field == "rotated_to")
        // It may be, once that one is out of use.
        _ = try scene.store.revoke(fresh.id, reason: nil, by: Self.actor)
        let second = try scene.store.rotate(old.id, overlapSeconds: 1, by: Self.actor).key.record
        // What is left of the old key is no lifetime.
        #expect((now + 999...now + 1_020).contains(try #require(second.expiresAtSeconds)))
    }

    @Test("an overlap never outlives the old key, and may be nothing", arguments: [false, true])
    func overlap(_ spreads: Bool) throws {
        let scene = try Scene(spreads: spreads)
        let now = WallClock.nowSeconds()
        let (short, _) = try scene.create(try Scene.request(name: "short", expires: now + 50))
        let capped = try scene.store.rotate(short.id, overlapSeconds: 86_400, by: Self.actor)
        let end = capped.old.record.expiresAtSeconds
        #expect(end == now + 50)
        let (eternal, _) = try scene.create(try Scene.request(name: "eternal"))
        let ended = try scene.store.rotate(eternal.id, overlapSeconds: 0, by: Self.actor)
        let (status, expiry) = (ended.old.status(), ended.key.record.expiresAtSeconds)
        #expect(status == .expired && expiry == nil)
        let negative = problem { _ = try scene.store.rotate(eternal.id, overlapSeconds: -1, by: Self.actor) }
        #expect(negative?.field == "overlap")
        let (off, _) = try scene.create(try Scene.request(name: "off"))
        _ = try scene.store.disable(off.id, by: Self.actor)
        let disabled = problem { _ = try scene.store.rotate(off.id, overlapSeconds: 1, by: Self.actor) }
        #expect(disabled?.field == "status")
    }

    @Test("no two usable keys of an account share a name", arguments: [false, true])
    func names(_ spreads: Bool) throws {
        let scene = try Scene(spreads: spreads)
        let (first, _) = try scene.create(try Scene.request(name: "ci"))
        let again = problem { _ = try scene.create(try Scene.request(name: "ci")) }
        #expect(again?.field == "name" && again?.text.contains(first.id) == true)
        // Elsewhere, or under another name, or after the first has gone.
        _ = try scene.create(try Scene.request(account: "globex", name: "ci"))
        let (second, _) = try scene.create(try Scene.request(name: "cd"))
        var changes = KeyChanges()
        changes.name = .set("ci")
        let renamed = problem { _ = try scene.store.update(second.id, changes, by: Self.actor) }
        #expect(renamed?.field == "name")
        // The successor has the name, and the replaced key does not stand against it.
        let fresh = try scene.store.rotate(first.id, overlapSeconds: 600, by: Self.actor).key.record
        let third = problem { _ = try scene.create(try Scene.request(name: "ci")) }
        #expect(third?.text.contains(fresh.id) == true)
        _ = try scene.store.revoke(fresh.id, reason: nil, by: Self.actor)
        _ = try scene.store.update(second.id, changes, by: Self.actor)
        #expect(try scene.store.find(id: second.id).record.name == "ci")
    }

    @Test("a creation that is sent twice makes one key", arguments: [false, true])
    func idempotency(_ spreads: Bool) throws {
        let scene = try Scene(spreads: spreads)
        let once = Idempotency(key: "order-17", request: Array("{}".utf8))
        let first = try scene.store.create(try Scene.request(), idempotency: once, by: Self.actor)
        let second = try scene.store.create(try Scene.request(), idempotency: once, by: Self.actor)
        let (shown, again) = (first.reveal(), second.reveal())
        #expect(shown != nil && again == nil)
        let (made, found) = (first.key.record, second.key.record)
        #expect(made == found)
        #expect(try scene.ids(KeyFilter(text: "key_")).count == 2)
        let other = Idempotency(key: "order-17", request: Array("{ }".utf8))
        let mistake = problem {
            _ = try scene.store.create(try Scene.request(), idempotency: other, by: Self.actor)
        }
        #expect(mistake?.field == "idempotency_key")
        let empty = Idempotency(key: "", request: [])
        #expect(
            problem { _ = try scene.store.create(try Scene.request(), idempotency: empty, by: Self.actor) }?
                .field == "idempotency_key")
        let left = try scene.redis.command(["KEYS", "gateway:idempotency:*"]).elements ?? []
        let name = try #require(left.first?.text)
        #expect(left.count == 1 && !name.contains("order"))
        #expect((1...86_400).contains(try scene.redis.command(["TTL", name]).integer ?? -1))
    }

    @Test("every problem names its field")
    func fields() throws {
        let scene = try Scene()
        let (record, secret) = try scene.create(try Scene.request())
        let past = WallClock.nowSeconds() - 1
        let cases: [(String, KeyRequest)] = [
            ("tier", try Scene.request(tier: "profesional")), ("limits", try Scene.request(limits: "many")),
            ("account", try Scene.request(account: "a{b}")), ("name", try Scene.request(name: "two\nlines")),
            ("expires_at", try Scene.request(expires: past)), ("name", try Scene.request(name: "ci")),
            ("name", try Scene.request(name: "for \(secret)")),
            ("account", try Scene.request(account: secret)),
            ("tier", try Scene.request(tier: secret)), ("limits", try Scene.request(limits: secret)),
        ]
        for (field, request) in cases {
            let found = problem { _ = try scene.create(request) }
            #expect(found?.field == field && found?.text.contains(secret) == false, "\(field)")
        }
        let reason = problem {
            _ = try scene.store.revoke(record.id, reason: "was \(secret)", by: Self.actor)
        }
        #expect(reason?.field == "reason" && reason?.text.contains(secret) == false)
        let id = problem { _ = try scene.store.find(id: secret) }
        #expect(id?.field == "id" && id?.text.contains(secret) == false)
        guard case .notFound = problem({ _ = try scene.store.disable("key_none", by: Self.actor) }) else {
            Issue.record("a key that does not exist was found")
            return
        }
    }

    @Test("a key is due when it is old or has long been unused, and not once it is replaced")
    func due() throws {
        let scene = try Scene()
        let now = WallClock.nowSeconds()
        let day: Int64 = 86_400
        let cases: [(id: String, created: Int64, seen: Int64?, more: [String], due: StoredKey.RotationDue?)] =
            [
                ("fresh", now - day, nil, [], nil), ("old", now - 90 * day, now - day, [], .age),
                ("idle", now - 200 * day, now - 90 * day, [], .unused),
                ("never", now - 91 * day, nil, [], .unused),
                ("gone", now - 100 * day, nil, ["status", "revoked"], nil),
                ("replaced", now - 100 * day, now, ["rotated_to", "x"], nil),
                ("over", now - 100 * day, now, ["expires_at", "\(now - 1)"], nil),
            ]
        for (number, key) in cases.enumerated() {
            let digest = Digest256((UInt64(number + 1), 0, 0, 0)).hexadecimal
            _ = try scene.redis.command(
                [
                    "HSET", "gateway:key:\(digest)", "tier", "pro", "id", key.id, "created_at",
                    "\(key.created)",
                ]
                    + key.more)
            if let seen = key.seen {
                _ = try scene.redis.command(["HSET", "gateway:seen", key.id, "\(seen)"])
            }
        }
        for key in cases { #expect(try scene.store.find(id: key.id).rotationDue() == key.due, "\(key.id)") }
        #expect(Set(try scene.ids(KeyFilter(isDue: true))) == ["old", "idle", "never"])
        #expect(try scene.store.count(KeyFilter(isDue: true)) == 3)
        let spread = try scene.another(spreads: true)
        #expect(try spread.count(KeyFilter(isDue: true)) == 3)
    }

    @Test("an account's windows are told as the limiter keeps them")
    func limits() throws {
        let scene = try Scene()
        _ = try scene.create(try Scene.request())
        _ = try scene.create(try Scene.request(name: "own", limits: "5/minute,10000/hour"))
        let time = try #require(try scene.redis.command(["TIME"]).elements)
        let now = try #require(time[0].text.flatMap { Int64($0) }) * 1_000_000
        let minute = [now - 61_000_000, now - 30_000_000, now - 10_000_000].map { "\($0)" }
        _ = try scene.redis.command(["RPUSH", "gateway:limit:{acme}:60s"] + minute)
        // Permits on lease count, those of a lease that ended long ago do not.
        let leases = [
            "7-ab/0=30:\(now + 200_000):7", "7-ab/1=10:\(now + 100_000):7",
            "gone/0=9:\(now - 4_000_000_000):1",
        ]
        _ = try scene.redis.command([
            "RPUSH", "gateway:limit:{acme}:3600s", "r:12;" + leases.joined(separator: ";"),
            "\(now - 4_000_000_000):2", "\(now - 60_000_000):10",
        ])
        let limits = try scene.store.limits(ofAccount: "acme")
        let custom = try #require(limits.policies.first { $0.name == "custom" })
        #expect(custom.windows.map(\.used) == [2, 50] && custom.windows.map(\.remaining) == [3, 9_950])
        #expect(custom.windows.map(\.leased) == [0, 40])
        #expect(custom.windows[1].holders.map(\.node) == ["7-ab"])
        #expect(custom.windows[1].holders.map(\.permits) == [40])
        let next = try #require(custom.windows[0].nextPermitInMicroseconds)
        #expect((20_000_000...30_000_001).contains(next))
        let tier = try #require(limits.policies.first { $0.name == "pro" })
        // The key of the configuration is charged to the account as well.
        #expect(tier.windows[0].used == 2 && tier.keys.count == 2 && tier.keys.contains("key_ci"))
        guard case .notFound = problem({ _ = try scene.store.limits(ofAccount: "nobody") }) else {
            Issue.record("an account without keys has limits")
            return
        }
    }
}
