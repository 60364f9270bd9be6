import KeyManagement
import Keys
import Testing

/// Without a store keys live in the process, under the same rules.
@Suite("Keys in memory")
struct MemoryKeysTests {
    private let memory = MemoryKeys(prefix: "gateway:")

    private func store() throws -> KeyStore {
        try KeyStore(try Scene.configuration("memory:"), memory: memory)
    }

    private func create(_ name: String?, account: String = "acme") throws -> (id: String, secret: String) {
        let made = try store().create(
            try Scene.request(account: account, name: name), by: Scene.actor)
        let secret = made.reveal()
        return (made.key.record.id, try #require(secret))
    }

    @Test("a key is made, found, changed, replaced and revoked as in a store, with its trail")
    func life() throws {
        let store = try store()
        let (id, _) = try create("ci")
        let records = try #require(memory.takeChange())
        #expect(records.map(\.id) == [id] && memory.takeChange() == nil)
        #expect(problem { _ = try create("ci") }?.field == "name")
        #expect(memory.takeChange() == nil)
        #expect(try store.disable(id, by: Scene.actor).status() == .disabled)
        #expect(memory.takeChange()?.first?.status == .disabled)
        let version = try store.enable(id, by: Scene.actor).version
        var changes = KeyChanges()
        changes.tier = "standard"
        _ = try store.update(id, changes, version: version, by: Scene.actor)
        #expect(problem { _ = try store.update(id, changes, version: version, by: Scene.actor) } != nil)
        let fresh = try store.rotate(id, overlapSeconds: 600, by: Scene.actor).key.record
        #expect(fresh.tier == "standard" && fresh.rotatedFrom == id)
        memory.note(seen: [id: 77], calls: [id: 3])
        let old = try store.find(id: id)
        #expect(old.record.rotatedTo == fresh.id && old.lastSeenSeconds == 77)
        #expect(old.callsSinceRotation == 3)
        #expect(try store.revoke(id, reason: "leak", by: Scene.actor).status() == .revoked)
        #expect(problem { _ = try store.enable(id, by: Scene.actor) } != nil)
        let actions = try store.trail(TrailFilter(id: id)).entries.map(\.action)
        #expect(actions == ["revoke", "rotate", "update", "enable", "disable", "create"])
        #expect(Set(memory.takeChange()?.map(\.id) ?? []) == [id, fresh.id])
        #expect(problem { _ = try store.find(id: "key_none") } != nil)
    }

    @Test("pages are whole, with the configuration's keys first, and the trail has pages too")
    func pages() throws {
        let store = try store()
        var made: Set<String> = ["key_ci"]
        for number in 0..<30 {
            made.insert(try create("number\(number)x", account: number % 2 == 0 ? "even" : "odd").id)
        }
        for (filter, count) in [
            (KeyFilter(), 31), (KeyFilter(account: "odd"), 15), (KeyFilter(text: "NUMBER7X"), 1),
        ] {
            var ids: [String] = []
            var cursor: String?
            repeat {
                let page = try store.list(filter, after: cursor, limit: 7)
                ids += page.keys.map(\.record.id)
                cursor = page.nextCursor
            } while cursor != nil
            #expect(ids.count == count && Set(ids).count == count && made.isSuperset(of: ids))
        }
        var lines: [String] = []
        var cursor: String?
        repeat {
            let page = try store.trail(after: cursor, limit: 7)
            lines += page.entries.map(\.id)
            cursor = page.nextCursor
        } while cursor != nil
        #expect(Set(lines) == made.subtracting(["key_ci"]) && lines.count == 30)
    }

    @Test("the same creation sent twice makes one key, and there is an end to how many there are")
    func bounds() throws {
        let store = try store()
        let once = Idempotency(key: "k", request: [1])
        let first = try store.create(try Scene.request(name: nil), idempotency: once, by: Scene.actor)
        let second = try store.create(try Scene.request(name: nil), idempotency: once, by: Scene.actor)
        let (isReplay, ids) = (second.isReplay, [first.key.record.id, second.key.record.id])
        #expect(isReplay && ids[0] == ids[1])
        for _ in 1..<MemoryKeys.keysMax { _ = try create(nil) }
        #expect(refusal { _ = try create(nil) }?.contains("1000") == true)
        #expect(try store.count(KeyFilter()) == MemoryKeys.keysMax + 1)
    }
}
