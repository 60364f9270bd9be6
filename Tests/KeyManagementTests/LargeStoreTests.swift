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

    @Test("lists, searches and pages stay under a second, and no command keeps Redis for 5 ms")
    func timing() throws {
        let scene = try Scene()
        for start in stride(from: 0, to: 100_000, by: 1_000) {
            _ = try scene.redis.command(["EVAL", Self.fill, "0", "\(start)"])
        }
        let store = scene.store
        let work: [(name: String, body: () throws -> Int, expected: Int)] = [
            ("first page", { try store.list().keys.count }, 100),
            ("search for one name", { try store.list(KeyFilter(text: "service 4711")).keys.count }, 11),
            ("search in vain", { try store.list(KeyFilter(text: "nothing")).keys.count }, 0),
            ("keys of an account", { try store.list(KeyFilter(account: "account-7")).keys.count }, 100),
            (
                "a page of a thousand", { try store.list(KeyFilter(tier: "pro"), limit: 1_000).keys.count },
                1_000
            ),
            ("count", { try store.count(KeyFilter(isDue: true)) ?? 0 }, 100_000),
            ("limits", { try store.limits(ofAccount: "account-7").policies.count }, 1),
        ]
        // A machine that is busy with other things can stop Redis in the middle of a command: what is slow
        // every time is slow.
        var worst: [String] = []
        for attempt in 0..<3 {
            worst = []
            _ = try scene.redis.command(["CONFIG", "SET", "slowlog-log-slower-than", "5000"])
            _ = try scene.redis.command(["SLOWLOG", "RESET"])
            for item in work {
                let begin = MonotonicClock.nowMicroseconds()
                let count = try item.body()
                let took = MonotonicClock.nowMicroseconds() - begin
                #expect(count == item.expected, "\(item.name)")
                if took >= 1_000_000 { worst.append("\(item.name): \(took / 1_000) ms") }
            }
            let slow = try scene.redis.command(["SLOWLOG", "GET", "10"]).elements ?? []
            for entry in slow {
                let command = entry.elements?[3].elements?.first?.text ?? ""
                worst.append("\(command): \(entry.elements?[2].integer ?? 0) us of Redis")
            }
            if worst.isEmpty { break }
            if attempt < 2 { continue }
        }
        #expect(worst.isEmpty)
    }

    @Test("a walk through all pages shows every key once")
    func walk() throws {
        let scene = try Scene()
        for start in stride(from: 0, to: 20_000, by: 1_000) {
            _ = try scene.redis.command(["EVAL", Self.fill, "0", "\(start)"])
        }
        let ids = try scene.ids(KeyFilter(tier: "pro"), limit: 500)
        #expect(ids.count == 2_001 && Set(ids).count == 2_001)
    }
}
