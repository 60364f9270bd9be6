import Glibc
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

    @Test("lists, searches and pages of many keys stay cheap, and no command keeps Redis long")
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
        _ = try scene.redis.command(["CONFIG", "RESETSTAT"])
        for item in work {
            // Processor time of both sides: they wait for each other, so that on a machine of their own this
            // is the time it takes, and another load on the machine changes nothing.
            let begin = try Self.cpuMicroseconds(scene)
            let count = try item.body()
            let took = try Self.cpuMicroseconds(scene) - begin
            #expect(count == item.expected, "\(item.name)")
            // Half a second where nothing else runs; caches and threads that are shared cost up to five
            // times.
            #expect(took < 3_000_000, "\(item.name) takes \(took / 1_000) ms")
        }
        // By the clock on the wall, which runs on while Redis has no processor: hence the average.
        let (calls, average) = try Self.scripts(scene)
        #expect(calls > 3_000 && average < 5_000, "a script takes \(average) us on average")
    }

    /// Processor time of this thread and of Redis.
    private static func cpuMicroseconds(_ scene: Scene) throws -> Int64 {
        var own = timespec()
        unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &own)
        let text = try scene.redis.command(["INFO", "cpu"]).text ?? ""
        var seconds = 0.0
        for line in text.split(separator: "\r\n") where line.hasPrefix("used_cpu_") {
            let parts = line.split(separator: ":")
            guard parts[0] == "used_cpu_sys" || parts[0] == "used_cpu_user" else { continue }
            seconds += Double(parts[1]) ?? 0
        }
        return Int64(seconds * 1_000_000) + Int64(own.tv_sec) * 1_000_000 + Int64(own.tv_nsec) / 1_000
    }

    /// How many scripts Redis has run, and how long one took on average, in microseconds.
    private static func scripts(_ scene: Scene) throws -> (calls: Int64, average: Int64) {
        let text = try scene.redis.command(["INFO", "commandstats"]).text ?? ""
        let line = try #require(text.split(separator: "\r\n").first { $0.hasPrefix("cmdstat_eval:") })
        let values = line.split(whereSeparator: { ":,=".contains($0) })
        func value(_ name: String) -> Int64 {
            let index = values.firstIndex { $0 == name } ?? values.count
            return index + 1 < values.count ? Int64(values[index + 1]) ?? -1 : -1
        }
        return (value("calls"), value("usec") / max(1, value("calls")))
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
