import KeyManagement
import Keys
import Reactor
import Redis
import TestSupport
import Testing

@Suite("A hundred thousand keys", .enabled(if: RedisServer.isAvailable), .serialized)
struct LargeStoreTests {
    /// Writes a thousand keys with all their names.
    private static let fill = #"""
        for i = tonumber(ARGV[1]), tonumber(ARGV[1]) + 999 do
          local hex = redis.sha1hex(i) .. string.sub(redis.sha1hex('x' .. i), 1, 24)
          local id = 'key_' .. string.sub(hex, 1, 16)
          redis.call('HSET', 'gateway:key:' .. hex, 'id', id, 'account', 'account-' .. i % 1000, 'tier',
            i % 10 == 0 and 'pro' or 'standard', 'scopes', 'projects:read projects:write', 'status', 'active',
            'name', 'service ' .. i, 'hint', string.sub(hex, -4), 'created_at', tostring(1700000000 + i),
            'expires_at', '99999999999')
          redis.call('SET', 'gateway:id:' .. id, hex)
          redis.call('ZADD', 'gateway:keys', 1700000000 + i, id)
          redis.call('HSET', 'gateway:seen', id, tostring(1700000000 + i))
        end
        """#

    /// What Redis has been asked for, by command, and how much it has answered.
    private struct Work {
        var calls: [String: Int]
        var bytesOut: Int

        init(_ scene: Scene) throws {
            func lines(_ section: String) throws -> [[Substring]] {
                let text = try scene.redis.command(["INFO", section]).text ?? ""
                return text.split(separator: "\r\n").map { $0.split(whereSeparator: { ":,=".contains($0) }) }
            }
            calls = [:]
            for line in try lines("commandstats") where line[0].hasPrefix("cmdstat_") && line.count > 2 {
                calls[String(line[0].dropFirst(8))] = Int(line[2])
            }
            let out = try lines("stats").first { $0[0] == "total_net_output_bytes" }
            bytesOut = try #require(out.flatMap { Int($0[1]) })
        }
    }

    private struct Item: Sendable {
        var name: String
        var body: @Sendable (KeyStore) throws -> Int
        var expected: Int
        /// Steps through the index, of 512 entries at most each.
        var steps: Int
        /// Keys that are read whole; one of the page may stand in the configuration.
        var whole: Int
    }

    private static let items = [
        Item(name: "first page", body: { try $0.list().keys.count }, expected: 100, steps: 1, whole: 100),
        Item(
            name: "search for one name",
            body: { try $0.list(KeyFilter(text: "service 4711")).keys.count },
            expected: 11, steps: 196, whole: 11),
        Item(
            name: "search in vain", body: { try $0.list(KeyFilter(text: "nothing")).keys.count },
            expected: 0, steps: 196, whole: 0),
        Item(
            name: "keys of an account",
            body: { try $0.list(KeyFilter(account: "account-7"), limit: 1_000).keys.count },
            expected: 100, steps: 196, whole: 100),
        Item(
            name: "a page of a thousand",
            body: { try $0.list(KeyFilter(tier: "pro"), limit: 1_000).keys.count },
            expected: 1_000, steps: 20, whole: 1_000),
        Item(
            name: "a window that is looked at ten times",
            body: { store in
                for _ in 0..<9 { _ = try store.limits(ofAccount: "account-7") }
                return try store.limits(ofAccount: "account-7").policies[0].keys.count
            }, expected: 100, steps: 196, whole: 1_000),
        Item(
            name: "count", body: { try $0.count(KeyFilter(isDue: true)) ?? 0 }, expected: 100_000,
            steps: 196, whole: 100_000),
    ]

    /// How much is asked for is counted, not how long it takes: that differs with the machine and with what
    /// else runs there. `make bench-keys` measures.
    @Test("a list or search asks for no more than it must, in small commands")
    func work() throws {
        let scene = try Scene()
        for start in stride(from: 0, to: 100_000, by: 1_000) {
            _ = try scene.redis.command(["EVAL", Self.fill, "0", "\(start)"])
        }
        for item in Self.items {
            let store = try scene.another()
            _ = try scene.redis.command(["CONFIG", "RESETSTAT"])
            let count = try item.body(store)
            let work = try Work(scene)
            #expect(count == item.expected, "\(item.name)")
            // As many as there must be, of which none can be larger then.
            #expect(work.calls["zrevrange"] == item.steps, "\(item.name): \(work.calls)")
            #expect(work.calls["mget"] == item.steps, "\(item.name): \(work.calls)")
            #expect(abs(work.calls["hgetall", default: 0] - item.whole) <= 1, "\(item.name): \(work.calls)")
            #expect(work.calls["hmget", default: 0] <= 101_000, "\(item.name): \(work.calls)")
            // One script for five hundred places of the table of all names; there are 2^18.
            #expect(work.calls["eval", default: 0] <= 540, "\(item.name): \(work.calls)")
            #expect(work.calls["keys"] == nil && work.calls["sort"] == nil)
            let bytes = work.bytesOut - 250 * item.whole
            #expect(bytes < 25_000_000, "\(item.name): \(bytes) bytes")
        }
    }

    @Test("a walk through all pages shows every key once")
    func walk() throws {
        let scene = try Scene()
        for start in stride(from: 0, to: 5_000, by: 1_000) {
            _ = try scene.redis.command(["EVAL", Self.fill, "0", "\(start)"])
        }
        let ids = try scene.ids(KeyFilter(tier: "pro"), limit: 500)
        #expect(ids.count == 501 && Set(ids).count == 501)
    }
}
