import Configuration
import KeyManagement
import Keys
import Reactor
import Redis
import TestSupport
import Testing

@Suite("Keys in the store", .enabled(if: RedisServer.isAvailable))
struct KeyStoreTests {
    @Test("a new key is written under every name, and its secret under none")
    func create() throws {
        let scene = try Scene()
        let before = WallClock.nowSeconds()
        let (record, secret) = try scene.create(
            try Scene.request(expires: before + 3_600, limits: "5000/minute,200/second"))
        #expect(secret.hasPrefix("sk_live_") && secret.utf8.count == 8 + 38)
        let digest = record.digest.hexadecimal
        let fields = try scene.fields(digest)
        let created = try #require(fields["created_at"].flatMap { Int64($0) })
        #expect((before...before + 5).contains(created))
        #expect(
            fields == [
                "id": "key_" + digest.prefix(16), "account": "acme", "tier": "pro", "scopes": "projects:read",
                "status": "active", "name": "ci", "hint": String(secret.suffix(4)),
                "created_at": "\(created)",
                "expires_at": "\(before + 3_600)", "limits": "5000/minute,200/second",
            ])
        #expect(try scene.redis.command(["GET", "gateway:id:\(record.id)"]).text == digest)
        #expect(try scene.redis.command(["ZSCORE", "gateway:keys", record.id]).text == "\(created)")
        #expect(
            try scene.audit().map { $0.filter { $0.key != "after" } } == [
                ["action": "create", "id": record.id, "account": "acme", "actor": "tester", "from": "a test"]
            ])
        let names = try #require(try scene.redis.command(["KEYS", "*"]).elements).compactMap(\.text)
        #expect(names.count == 5)
        for name in names {
            let dumped = try scene.redis.command(["DUMP", name])
            guard case .string(let bytes) = dumped else { continue }
            #expect(!String(decoding: bytes, as: UTF8.self).contains(secret.dropFirst(8)))
        }
    }

    @Test("a key is found by itself and by its id")
    func find() throws {
        let scene = try Scene()
        let (record, secret) = try scene.create(try Scene.request())
        _ = try scene.redis.command(["HSET", "gateway:seen", record.id, "1700000000"])
        let digest = try KeyStore.digest(of: Array(secret.utf8).span, scene.configuration)
        #expect(digest == record.digest)
        let byDigest = try #require(try scene.store.find(digest: digest))
        let byID = try scene.store.find(id: record.id)
        #expect(byDigest.record == record && byID.record == record)
        #expect(byID.lastSeenSeconds == 1_700_000_000 && !byID.isStatic)
        #expect(refusal { _ = try scene.store.find(id: "key_nothing") } == "there is no key key_nothing")
        #expect(refusal { _ = try scene.store.find(id: "key_0123456789abcdef") } != nil)
    }

    @Test("a pepper makes another digest")
    func pepper() throws {
        let scene = try Scene(keys: "  pepper_file: /pepper")
        let plain = try Scene.configuration("memory:")
        let (record, secret) = try scene.create(try Scene.request())
        let bytes = Array(secret.utf8)
        #expect(try KeyStore.digest(of: bytes.span, scene.configuration) == record.digest)
        #expect(try KeyStore.digest(of: bytes.span, plain) != record.digest)
    }

    @Test("two keys are never the same")
    func distinct() throws {
        let scene = try Scene()
        var secrets: Set<String> = []
        for _ in 0..<50 { secrets.insert(try scene.store.prepare(try Scene.request()).secret.reveal()) }
        #expect(secrets.count == 50)
    }

    @Test("what would make an unusable record is refused before it is written")
    func unusableRequests() throws {
        let scene = try Scene()
        let requests = [
            try Scene.request(tier: "profesional"), try Scene.request(limits: "many"),
            try Scene.request(account: "a{b}"), try Scene.request(account: ""),
            try Scene.request(account: String(repeating: "a", count: 200)),
            try Scene.request(name: "two\nlines"),
            try Scene.request(name: String(repeating: "n", count: 300)),
        ]
        for request in requests {
            let text = refusal { _ = try scene.create(request) }
            #expect(text?.isEmpty == false, "\(request)")
        }
        #expect(try scene.redis.command(["DBSIZE"]).integer == 0)
    }

    @Test("a record of another program is found by its default id, whatever it leaves out")
    func foreign() throws {
        let scene = try Scene()
        let digest = String(repeating: "0123456789abcdef", count: 4)
        _ = try scene.redis.command(["HSET", "gateway:key:\(digest)", "tier", "standard"])
        let found = try scene.store.find(id: "key_0123456789abcdef")
        #expect(found.record.digest.hexadecimal == digest && found.record.account == found.record.id)
        #expect(try scene.ids(KeyFilter(tier: "standard")) == [found.record.id])
        _ = try scene.store.revoke(found.record.id, reason: nil, by: Scene.actor)
        let fields = try scene.fields(digest)
        #expect(fields["revoked_at"] != nil)
        #expect(fields.filter { $0.key != "revoked_at" } == ["tier": "standard", "status": "revoked"])
    }

    @Test("a revoked key is revoked, and the trail says by whom and why")
    func revoke() throws {
        let scene = try Scene()
        let (record, _) = try scene.create(try Scene.request())
        let revoked = try scene.store.revoke(record.id, reason: "leak", by: Scene.actor)
        #expect(revoked.record.status == .revoked)
        #expect(try scene.store.find(id: record.id).record.status == .revoked)
        #expect(
            try scene.audit().last?.filter { !["before", "after"].contains($0.key) } == [
                "action": "revoke", "id": record.id, "account": "acme", "actor": "tester", "from": "a test",
                "reason": "leak",
            ])
        #expect(refusal { _ = try scene.store.revoke("key_none", reason: nil, by: Scene.actor) } != nil)
    }

    @Test("a key of the configuration is shown, and is not changed from outside")
    func staticKeys() throws {
        let scene = try Scene()
        let found = try scene.store.find(id: "key_ci")
        #expect(found.isStatic && found.record.tier == "pro")
        let text = refusal { _ = try scene.store.revoke("key_ci", reason: nil, by: Scene.actor) }
        #expect(text?.contains("keys.static") == true)
        let digest = try #require(Digest256(hex: Scene.staticDigest))
        var known = KnownExposures()
        let exposed = try scene.store.recordExposure(digest, revoking: true, known: &known, by: Scene.actor)
        #expect(exposed?.id == "key_ci")
        #expect(try scene.redis.command(["DBSIZE"]).integer == 0)
    }

    @Test("an exposed key is written down, and revoked only when asked", arguments: [true, false])
    func exposure(_ revoking: Bool) throws {
        let scene = try Scene()
        let (record, _) = try scene.create(try Scene.request())
        var known = KnownExposures()
        let hour: Int64 = 3_600_000_000
        // Whoever has the key may send it as often as he likes: the trail has room for other things.
        for time in [0, 1, hour - 1, hour, hour + 1, 3 * hour] {
            _ = try scene.store.recordExposure(
                record.digest, revoking: revoking, known: &known, by: Scene.actor, at: time)
        }
        #expect(try scene.store.find(id: record.id).record.status == (revoking ? .revoked : .active))
        let actions = try scene.audit().compactMap { $0["action"] }
        let followed = revoking ? ["exposed", "revoke"] : ["exposed", "exposed", "exposed"]
        #expect(actions == ["create"] + followed)
        let unknown = Digest256((1, 2, 3, 4))
        let found = try scene.store.recordExposure(unknown, revoking: true, known: &known, by: Scene.actor)
        #expect(found == nil)
    }

    @Test("a key that was revoked and then came in clear is written down once")
    func revokedExposure() throws {
        let scene = try Scene()
        let (record, _) = try scene.create(try Scene.request())
        _ = try scene.store.revoke(record.id, reason: nil, by: Scene.actor)
        var known = KnownExposures()
        for time in [0, 1, 3_600_000_000, 90_000_000_000] as [Int64] {
            _ = try scene.store.recordExposure(
                record.digest, revoking: false, known: &known, by: Scene.actor, at: time)
        }
        #expect(try scene.audit().compactMap { $0["action"] } == ["create", "revoke", "exposed"])
    }

    @Test("records that cannot be used do not hide the others")
    func unreadableRecords() throws {
        let scene = try Scene()
        let (record, _) = try scene.create(try Scene.request())
        let text = Digest256((1, 0, 0, 0))
        _ = try scene.redis.pipeline([
            ["SET", "gateway:key:\(text.hexadecimal)", "x"],
            [
                "HSET", "gateway:key:\(Digest256((2, 0, 0, 0)).hexadecimal)", "tier", "pro", "status",
                "asleep",
            ],
            ["HSET", "gateway:key:not-a-digest", "tier", "pro"],
        ])
        #expect(try scene.ids(KeyFilter(account: "acme")) == ["key_ci", record.id])
        #expect(refusal { _ = try scene.store.find(digest: text) } != nil)
    }

    @Test("a store that refuses to show a record is a problem, not an empty list")
    func listThatFails() throws {
        let scene = try Scene(user: "+@all -hgetall")
        _ = try scene.redis.command([
            "HSET", "gateway:key:\(Digest256((2, 0, 0, 0)).hexadecimal)", "tier", "pro",
        ])
        #expect(throws: KeyStoreProblem.self) { try scene.store.list() }
    }

    @Test("a change that Redis refuses in part is not done at all")
    func allOrNothing() throws {
        let scene = try Scene(user: "+@all -xadd")
        #expect(throws: KeyStoreProblem.self) { try scene.create(try Scene.request()) }
        #expect(try scene.redis.command(["DBSIZE"]).integer == 0)
    }

    @Test("the trail does not grow for ever")
    func boundedTrail() throws {
        let scene = try Scene()
        let (record, _) = try scene.create(try Scene.request())
        let filler = (0..<1_000).map { _ in ["XADD", "gateway:audit", "*", "action", "x"] }
        for _ in 0..<101 { _ = try scene.redis.pipeline(filler) }
        _ = try scene.store.revoke(record.id, reason: nil, by: Scene.actor)
        let count = try #require(try scene.redis.command(["XLEN", "gateway:audit"]).integer)
        #expect(count < 101_000)
    }
}

@Suite("Keys without a store")
struct MemoryStoreTests {
    @Test("the memory store makes keys to paste, and keeps none")
    func memory() throws {
        let store = try KeyStore(try Scene.configuration("memory:"))
        #expect(store.isMemory)
        let prepared = try store.prepare(try Scene.request())
        let record = prepared.record
        let text = refusal { _ = try store.create(try Scene.request(), by: Scene.actor) }
        #expect(text?.contains("keys.static") == true)
        #expect(try store.list().keys.map(\.record.id) == ["key_ci"])
        #expect(try store.find(id: "key_ci").isStatic)
        #expect(refusal { _ = try store.find(id: "key_x") } != nil)
        #expect(try store.find(digest: record.digest) == nil)
        var known = KnownExposures()
        let exposed = try store.recordExposure(record.digest, revoking: true, known: &known, by: Scene.actor)
        #expect(exposed == nil)
    }

    @Test("a store that is not there is unavailable, with a reason and without the password")
    func unavailable() throws {
        let port = try Ports.free()
        do {
            _ = try KeyStore(
                try Scene.configuration("redis://user:hunter2@127.0.0.1:\(port)/0"),
                timeoutMilliseconds: 1_000)
            Issue.record("connected")
        } catch let problem as KeyStoreProblem {
            #expect(!problem.text.isEmpty && !problem.text.contains("hunter2"))
            guard case .unavailable = problem else {
                Issue.record("\(problem)")
                return
            }
        }
    }

    @Test("nothing about a key shows its secret")
    func hidden() throws {
        let configuration = try Scene.configuration("redis://user:hunter2@127.0.0.1:1/0")
        var dumped = ""
        dump(StoreOptions(configuration.store), to: &dumped)
        #expect(!dumped.contains("hunter2"))
    }
}
