import KeyManagement
import Keys
import Reactor
import Redis
import TestSupport
import Testing

@Suite("Listing keys", .enabled(if: RedisServer.isAvailable))
struct ListingTests {
    /// Records as another program would write them.
    private func fill(_ scene: Scene, _ count: Int) throws {
        let commands = (0..<count).map { number in
            let digest = Digest256((UInt64(number + 1) &* 0x9e37_79b9_7f4a_7c15, UInt64(number), 0, 0))
            return [
                "HSET", "gateway:key:\(digest.hexadecimal)", "id", "k\(number)", "tier",
                number % 3 == 0 ? "pro" : "standard", "account", number % 2 == 0 ? "even" : "odd", "name",
                "Name \(number)", "hint", "h\(number % 100)", "created_at", "\(1_000 + number / 10)",
                "status",
                number % 5 == 0 ? "disabled" : "active", "expires_at",
                number % 7 == 0 ? "5000" : "99999999999",
            ]
        }
        _ = try scene.redis.pipeline(commands)
    }

    @Test("a list has the keys asked for, the newest first, with their last use", arguments: [false, true])
    func list(_ spreads: Bool) throws {
        let scene = try Scene(spreads: spreads)
        try fill(scene, 30)
        _ = try scene.redis.command(["HSET", "gateway:seen", "k29", "77", "k0", "78"])
        let all = try scene.store.list().keys
        #expect(all.count == 31 && all[0].isStatic)
        let times = all.dropFirst().map { $0.record.createdAtSeconds ?? 0 }
        #expect(times == times.sorted(by: >))
        #expect(all.first { $0.record.id == "k29" }?.lastSeenSeconds == 77)
        #expect(all.first { $0.record.id == "k0" }?.lastSeenSeconds == 78)
        let some = try scene.ids(KeyFilter(account: "even", tier: "pro"))
        #expect(Set(some) == ["k24", "k18", "k12", "k6", "k0"])
        #expect(try scene.ids(KeyFilter(account: "acme")) == ["key_ci"])
    }

    @Test("both ways of listing pick the same keys", arguments: [1, 7, 1_000])
    func filters(_ limit: Int) throws {
        let scene = try Scene()
        try fill(scene, 500)
        _ = try scene.store.list()
        let spread = try scene.another(spreads: true)
        var filters = KeyFilter.Status.allCases.map { KeyFilter(status: $0) }
        filters += [
            KeyFilter(), KeyFilter(account: "odd", status: .active), KeyFilter(text: "NAME 7"),
            KeyFilter(tier: "pro", text: "h1"), KeyFilter(text: "k49"), KeyFilter(text: "no such"),
            KeyFilter(isDue: true),
        ]
        for filter in filters {
            var ids: [String] = []
            var cursor: String?
            repeat {
                let page = try spread.list(filter, after: cursor, limit: limit)
                #expect(page.keys.count <= limit)
                ids += page.keys.map(\.record.id)
                cursor = page.nextCursor
            } while cursor != nil
            #expect(try scene.ids(filter, limit: limit) == ids, "\(filter)")
            #expect(ids.count == Set(ids).count)
            #expect(try scene.store.count(filter) == ids.count)
        }
        #expect(try scene.ids(KeyFilter(status: .expired)).count == 72)
        #expect(try scene.ids(KeyFilter(text: "k49")).count == 11)
    }

    @Test("a key that takes over the id of one that has gone is found, and listed", arguments: [false, true])
    func takeover(_ spreads: Bool) throws {
        let scene = try Scene(spreads: spreads)
        let digests = (1...3).map { Digest256((UInt64($0), 0, 0, 0)).hexadecimal }
        func write(_ digest: String, _ id: String) throws {
            _ = try scene.redis.command(["HSET", "gateway:key:\(digest)", "id", id, "tier", "pro"])
        }
        try write(digests[0], "partner-ci")
        #expect(try scene.store.find(id: "partner-ci").record.digest.hexadecimal == digests[0])
        // Gone, and another key under its id; then one that goes on under another id.
        _ = try scene.redis.command(["DEL", "gateway:key:\(digests[0])"])
        try write(digests[1], "partner-ci")
        let second = try scene.another(spreads: spreads)
        #expect(try second.list().keys.map(\.record.digest.hexadecimal).contains(digests[1]))
        #expect(try second.find(id: "partner-ci").record.digest.hexadecimal == digests[1])
        try write(digests[1], "partner-old")
        try write(digests[2], "partner-ci")
        let third = try scene.another(spreads: spreads)
        #expect(Set(try third.list().keys.map(\.record.id)) == ["key_ci", "partner-ci", "partner-old"])
        _ = try third.revoke("partner-ci", reason: nil, by: Scene.actor)
        #expect(try scene.fields(digests[2])["status"] == "revoked")
        // One that is in use keeps its id.
        try write(digests[0], "partner-old")
        let fourth = try scene.another(spreads: spreads)
        #expect(try fourth.list().keys.count == 3)
        #expect(try fourth.find(id: "partner-old").record.digest.hexadecimal == digests[1])
    }

    @Test("records that nothing can read do not stand in the way of the others", arguments: [false, true])
    func malformed(_ spreads: Bool) throws {
        let scene = try Scene(spreads: spreads)
        func write(_ number: UInt64, _ id: [UInt8], created: String = "5") throws {
            let name = "gateway:key:\(Digest256((number, 0, 0, 0)).hexadecimal)"
            let parts = ["HSET", name, "tier", "pro", "created_at", created, "id"].map { Array($0.utf8) }
            _ = try scene.redis.command(parts + [id])
        }
        let good = ["plain", "acme / ci", "schlüssel", "鍵", "🔑"]
        for (number, id) in good.enumerated() { try write(UInt64(number + 1), Array(id.utf8)) }
        try write(100, Array("late".utf8), created: String(repeating: "9", count: 400))
        let bad: [[UInt8]] = [
            [0xff], [0x61, 0xc3], [0xe0, 0x80, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80],
            [0x61, 0x0a], [0x1b, 0x5b], Array(" a".utf8), Array("{a}".utf8), [0xc2, 0x85],
            [0xef, 0xbf, 0xbd], [0xe2, 0xc3, 0xa9, 0x80, 0x80],
        ]
        for (number, id) in bad.enumerated() { try write(UInt64(number + 200), id) }
        #expect(Set(try scene.ids()) == Set(good + ["key_ci"]))
        #expect(try scene.ids(limit: 1) == scene.ids())
        for id in good { #expect(try scene.store.find(id: id).record.id == id) }
        let index = try #require(try scene.redis.command(["ZRANGE", "gateway:keys", "0", "-1"]).elements)
        #expect(Set(index.compactMap(\.text)).subtracting(["late"]) == Set(good))
        let (made, _) = try scene.create(try Scene.request())
        #expect(try scene.store.revoke(made.id, reason: nil, by: Scene.actor).record.status == .revoked)
    }

    @Test("a listing is complete while keys are added", arguments: [false, true])
    func complete(_ spreads: Bool) throws {
        let scene = try Scene(spreads: spreads)
        var there: [String] = []
        for number in 0..<40 {
            there.append(try scene.create(try Scene.request(name: "n\(number)")).record.id)
        }
        var seen: [String] = []
        var cursor: String?
        var added = 0
        repeat {
            let page = try scene.store.list(after: cursor, limit: 7)
            seen += page.keys.map(\.record.id)
            cursor = page.nextCursor
            _ = try scene.create(try Scene.request(name: "added \(added)"))
            added += 1
        } while cursor != nil
        #expect(Set(seen).isSuperset(of: there) && seen.count == Set(seen).count)
    }

    @Test("a cursor whose key has gone still leads on")
    func goneCursor() throws {
        let scene = try Scene()
        try fill(scene, 50)
        let page = try scene.store.list(limit: 10)
        let last = try #require(page.keys.last?.record.id)
        _ = try scene.redis.command(["ZREM", "gateway:keys", last])
        var seen = page.keys.map(\.record.id)
        var cursor = page.nextCursor
        while let next = cursor {
            let page = try scene.store.list(after: next, limit: 10)
            seen += page.keys.map(\.record.id)
            cursor = page.nextCursor
        }
        #expect(Set(seen).count == 51)
    }

    @Test("what is no cursor and no limit is refused by name", arguments: ["x", "", "====", "YzotMQ", "MTo"])
    func cursors(_ text: String) throws {
        let scene = try Scene()
        #expect(problem { _ = try scene.store.list(after: text) }?.field == "cursor")
        #expect(problem { _ = try scene.store.trail(after: text) }?.field == "cursor")
        for limit in [0, -1, 1_001] {
            #expect(problem { _ = try scene.store.list(limit: limit) }?.field == "limit")
            #expect(problem { _ = try scene.store.trail(limit: limit) }?.field == "limit")
        }
    }

    @Test("keys of the configuration come in pages too, and hide the store's")
    func declared() throws {
        let store = try KeyStore(try Scene.configuration("memory:"))
        #expect(try store.list(limit: 1).keys.count == 1)
        let scene = try Scene()
        _ = try scene.redis.command(["HSET", "gateway:key:\(Scene.staticDigest)", "tier", "standard"])
        let keys = try scene.store.list().keys
        #expect(keys.map(\.record.id) == ["key_ci"] && keys[0].record.tier == "pro")
    }

    @Test("the trail is read from its end, in pages, by key")
    func trail() throws {
        let scene = try Scene()
        let (one, _) = try scene.create(try Scene.request(name: "one"))
        let (two, _) = try scene.create(try Scene.request(name: "two"))
        for _ in 0..<5 {
            _ = try scene.store.disable(one.id, by: Scene.actor)
            _ = try scene.store.enable(one.id, by: Scene.actor)
            _ = try scene.store.disable(two.id, by: Scene.actor)
            _ = try scene.store.enable(two.id, by: Scene.actor)
        }
        var lines: [TrailEntry] = []
        var cursor: String?
        repeat {
            let page = try scene.store.trail(TrailFilter(id: one.id), after: cursor, limit: 4)
            lines += page.entries
            cursor = page.nextCursor
        } while cursor != nil
        #expect(lines.count == 11 && lines.allSatisfy { $0.id == one.id })
        #expect(lines.last?.action == "create" && lines.first?.action == "enable")
        #expect(try scene.store.trail(TrailFilter(account: "acme", action: "enable")).entries.count == 10)
        // Other programs may write there as well.
        _ = try scene.redis.command(["XADD", "gateway:audit", "*", "id", "\"x", "before", "not {json"])
        let foreign = try #require(try scene.store.trail(limit: 1).entries.first)
        #expect(foreign.json.hasSuffix("\"before\":\"not {json\"}"))
    }
}
