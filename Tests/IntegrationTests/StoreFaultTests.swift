import Foundation
import TestSupport
import Testing

/// A Redis that answers, and not with what was asked for.
@Suite("Faults of the store", .serialized)
struct StoreFaultTests {
    private static let key = TestKey(secret: "sk_live_faulty", id: "", account: "", tier: "")
    private static var name: String { "gateway:key:\(sha256Hexadecimal(key.secret))" }

    private func start(
        _ redis: RedisServer, _ upstream: Upstream, _ extra: String = "", port: UInt16? = nil
    ) throws -> Gateway {
        try redis.store(Self.key.secret, ["tier": "enterprise", "account": "faulty"])
        let gateway = try Gateway(
            Setup(upstream).with {
                $0.keys = []
                $0.store = "url: \"redis://127.0.0.1:\(port ?? redis.port)\"\n\(extra)"
            })
        try Deadline(seconds: 5).wait("changes to be heard") {
            try gateway.metric("gateway_revocation_lag_seconds").map { $0 < 1 } ?? false
        }
        return gateway
    }

    @Test("a look-up that Redis refuses says nothing of the key: 503, not 401, and its streams go on")
    func refusedLookup() throws {
        let redis = try RedisServer()
        let gateway = try start(redis, try Upstream(RevocationTests.endless))
        let client = try RevocationTests.stream(gateway, Self.key)
        let other = TestKey(secret: "sk_live_fresh", id: "", account: "", tier: "")
        try redis.store(other.secret, ["tier": "enterprise"])
        try redis.command("ACL", "SETUSER", "default", "-hgetall")
        let refused = try gateway.call("/api/short", key: other)
        #expect(refused.status == 503 && refused["Retry-After"] != nil)
        // What is known of the key is gone with the change, and the stream's key is looked at again.
        try redis.command("HSET", Self.name, "name", "renamed")
        try Deadline(seconds: 5).wait("the change") {
            try gateway.call("/api/short", key: Self.key).status != 200
        }
        #expect(try gateway.call("/api/short", key: Self.key).status == 503)
        _ = try client.take(1_000)
        try Deadline(seconds: 5).wait("the reason") { gateway.log.contains("refuses HGETALL: NOPERM") }
        try redis.command("ACL", "SETUSER", "default", "+hgetall")
        // Nothing has been remembered of either.
        #expect(try gateway.call("/api/short", key: other).status == 200)
        #expect(try gateway.call("/api/short", key: Self.key).status == 200)
        try redis.command("HSET", Self.name, "status", "revoked")
        try Deadline(seconds: 1).wait("the end of the answer") { (try? client.take(5)) == nil }
    }

    @Test("a key in use whose look-up is in vain is asked for a few times a second, not without end")
    func vainRevisits() throws {
        let redis = try RedisServer()
        let gateway = try start(redis, try Upstream(RevocationTests.endless))
        let client = try RevocationTests.stream(gateway, Self.key)
        func lookups() throws -> Double {
            try gateway.metric("gateway_store_duration_seconds_count{command=\"lookup\"}") ?? 0
        }
        try redis.command("ACL", "SETUSER", "default", "-hgetall")
        let before = try lookups()
        try redis.command("HSET", Self.name, "name", "renamed")
        try Deadline(seconds: 5).wait("the second look-up") { try lookups() >= before + 2 }
        let start = ContinuousClock.now
        let second = try lookups()
        // A hundred parts of the answer take two seconds.
        _ = try client.take(1_000)
        let sweeps = Double(start.duration(to: .now).components.seconds + 1) * 4
        let asked = try lookups() - second
        #expect(asked >= 1 && asked <= sweeps + 2, "\(asked)")
    }
    @Test("what a connection was asked that broke while the roll was answered, the next one does not answer")
    func brokenRoll() throws {
        let redis = try RedisServer()
        let upstream = try Upstream { exchange in
            let account = try exchange.receiveBody()["X-Gateway-Account"] ?? ""
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: \(account.utf8.count)\r\n\r\n\(account)")
        }
        let gateway = try start(redis, upstream, "timeout: 10s")
        // A gateway that has died with the master: the roll is open until its time is over.
        let later = Int64(Date().timeIntervalSince1970) + 600
        try redis.command("ZADD", "gateway:nodes", "\(later)", "gone")
        try Deadline(seconds: 5).wait("two gateways") { try gateway.metric("gateway_store_nodes") == 2 }
        redis.kill()
        try Deadline(seconds: 5).wait("the outage") { try gateway.metric("gateway_store_up") == 0 }
        let empty = try RedisServer(port: redis.port)
        try Deadline(seconds: 5).wait("an answer to the roll") {
            try empty.command("KEYS", "gateway:told:*").contains("told")
        }
        empty.freeze()
        let askers = try (0..<3).map { number in
            let client = try gateway.connect()
            let unknown = TestKey(secret: "sk_live_unknown\(number)", id: "", account: "", tier: "")
            try client.send(Gateway.request(key: unknown))
            return client
        }
        try Deadline(seconds: 2).wait("the questions") {
            try gateway.metricSum("gateway_key_cache_total", holding: "miss") >= 3
        }
        // Stopped and continued, a worker runs its timers before it has heard of any event.
        gateway.child.signal(SIGSTOP)
        empty.kill()
        let again = try RedisServer(port: redis.port)
        let keys = (0..<5).map {
            TestKey(secret: "sk_live_known\($0)", id: "", account: "account\($0)", tier: "enterprise")
        }
        for key in keys { try again.store(key.secret, ["tier": key.tier, "account": key.account]) }
        gateway.child.signal(SIGCONT)
        for client in askers { #expect(try client.response().status == 503) }
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        for key in keys {
            let response = try gateway.call(key: key)
            #expect(response.status == 200 && response.text == key.account, "\(response.text)")
        }
        #expect(gateway.child.isRunning)
    }
    @Test("a key is served when its record comes, though the answer took longer than it counts without news")
    func slowAnswers() throws {
        let redis = try RedisServer()
        let relay = try Relay(to: redis.port)
        try redis.command("ACL", "SETUSER", "default", "-client|tracking")
        try redis.store(Self.key.secret, ["tier": "enterprise", "account": "faulty"])
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.store = "url: \"redis://127.0.0.1:\(relay.port)\"\ntimeout: 5s"
            })
        try Deadline(seconds: 5).wait("the key") { try gateway.call(key: Self.key).status == 200 }
        relay.delay(milliseconds: 1_200)
        let stale = "gateway_key_cache_total{result=\"stale\"}"
        let before = try gateway.metric(stale) ?? 0
        // Until the record is a second old, the key is served at once.
        try Deadline(seconds: 5).wait("a look-up") {
            #expect(try gateway.call(key: Self.key).status == 200)
            return try gateway.metric(stale) ?? 0 > before
        }
        #expect(try gateway.metric(stale) ?? 0 <= before + 2)
    }
    @Test("a record that changes again and again is waited for no longer than the timeout")
    func restlessRecord() throws {
        let redis = try RedisServer()
        let relay = try Relay(to: redis.port)
        let gateway = try start(redis, try Upstream(), port: relay.port)
        relay.delay(milliseconds: 150, exceptCarrying: "TRACKING")
        let changes = TestThread {
            try redis.command(["-r", "400", "-i", "0.01", "HSET", Self.name, "name", "restless"])
        }
        try Deadline(seconds: 5).wait("the first change") {
            try redis.command("HGET", Self.name, "name") == "restless"
        }
        let start = ContinuousClock.now
        #expect(try gateway.call(key: Self.key).status == 503)
        #expect(start.duration(to: .now) < .seconds(2))
        try changes.join(within: 20)
        try Deadline(seconds: 5).wait("the key") { try gateway.call(key: Self.key).status == 200 }
    }

    @Test("leases that are called back while a new connection proves itself do not break it")
    func recalledWhileProbing() throws {
        let redis = try RedisServer()
        let relay = try Relay(to: redis.port)
        let gateway = try start(redis, try Upstream(), port: relay.port)
        let callers = Callers(4, of: gateway, key: Self.key)
        try callers.wait(for: 500)
        // The oftener it was lost, the more proofs it owes; each is long under way.
        relay.delay(milliseconds: 40)
        for _ in 0..<3 {
            try redis.command("CLIENT", "KILL", "TYPE", "normal")
            try Deadline(seconds: 5).wait("the outage") { try gateway.metric("gateway_store_up") == 0 }
            try Deadline(seconds: 5).wait("a new connection") {
                try redis.command("CLIENT", "LIST").contains("name=gateway ")
            }
        }
        let window = "gateway:limit:{faulty}:60s"
        try redis.command(["-r", "150", "-i", "0.005", "PUBLISH", "gateway:recall", window])
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        #expect(!gateway.log.contains("nobody asked for"), "\(gateway.log)")
        try callers.wait(for: 100)
        #expect(try callers.stop().allSatisfy { $0.status == 200 })
    }
    /// Permits in a window's list.
    private func held(_ redis: RedisServer, _ name: String) throws -> Int {
        let head = try redis.command("LINDEX", name, "0")
        guard head.hasPrefix("r:") else { return Int(try redis.command("LLEN", name)) ?? 0 }
        return Int(head.dropFirst(2).prefix { $0.isNumber }) ?? 0
    }

    @Test("what the keys of an account were let in for in an outage counts in the windows of each")
    func otherWindowsInAnOutage() throws {
        let redis = try RedisServer()
        let gateway = try start(redis, try Upstream())
        let keys = try [("minute", "10/minute"), ("hour", "50/hour"), ("both", "20/minute,100/hour")].map {
            let key = TestKey(secret: "sk_live_\($0)", id: "", account: "", tier: "")
            try redis.store(key.secret, ["tier": "pro", "account": "windows", "limits": $1])
            return key
        }
        func admitted(_ count: Int, _ key: TestKey) throws -> Int {
            try (0..<count).count { _ in try gateway.call(key: key).status == 200 }
        }
        let windows = ["gateway:limit:{windows}:60s", "gateway:limit:{windows}:3600s"]
        for key in keys + [Self.key] { #expect(try admitted(1, key) == 1) }
        redis.freeze()
        // Somebody else's call finds out.
        #expect(try gateway.call(key: Self.key).status == 200)
        try Deadline(seconds: 5).wait("the outage") { try gateway.metric("gateway_store_up") == 0 }
        #expect(try admitted(1, keys[0]) == 1)
        #expect(try admitted(24, keys[1]) == 24)
        #expect(try admitted(2, keys[2]) == 2)
        redis.thaw()
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        try Deadline(seconds: 5).wait("what was let in") {
            try windows.map { try held(redis, $0) } == [5, 28]
        }
        #expect(try admitted(30, keys[1]) == 22)
        #expect(try admitted(10, keys[0]) == 5)
    }

    @Test("what was let in without Redis counts once, though the answer that it has been told was lost")
    func toldTwice() throws {
        let redis = try RedisServer()
        let relay = try Relay(to: redis.port)
        let gateway = try start(redis, try Upstream(), port: relay.port)
        let key = TestKey(secret: "sk_live_told", id: "", account: "", tier: "")
        try redis.store(key.secret, ["tier": "pro", "account": "told", "limits": "100/hour"])
        let window = "gateway:limit:{told}:3600s"
        let client = try gateway.connect()
        func admitted(_ count: Int) throws -> Int {
            try (0..<count).count { _ in
                try client.send(Gateway.request(key: key))
                return try client.response().status == 200
            }
        }
        // For a second its calls are decided without Redis, which is there.
        try redis.command("SET", window, "text")
        #expect(try admitted(60) == 60)
        try redis.command("DEL", window)
        relay.delay(milliseconds: 600, exceptCarrying: "TRACKING")
        try Deadline(seconds: 5).wait("what was let in") {
            try held(redis, window) == 60
        }
        try Deadline(seconds: 5).wait("the lost answer") { try gateway.metric("gateway_store_up") == 0 }
        let calls = try redis.calls(of: "evalsha")
        relay.delay(milliseconds: 0)
        try Deadline(seconds: 10).wait("the same again") { try redis.calls(of: "evalsha") > calls }
        #expect(try held(redis, window) == 60)
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        #expect(try admitted(50) == 40)
    }

    /// Has that many credentials come in clear.
    private func expose(_ count: Int, to gateway: Gateway) throws {
        for number in 0..<count {
            let guess = TestKey(secret: "sk_live_clear\(number)", id: "", account: "", tier: "")
            let client = try PlainClient(port: gateway.plaintextPort)
            try client.send(Gateway.request(key: guess))
            #expect(try client.response().status == 426)
        }
    }

    @Test("keys that come in clear do not keep a gateway from being counted as alive")
    func exposedKeysAndHeartbeats() throws {
        let redis = try RedisServer()
        let relay = try Relay(to: redis.port)
        let gateway = try start(redis, try Upstream(), port: relay.port)
        relay.delay(milliseconds: 80)
        try expose(100, to: gateway)
        let end = Deadline(seconds: 8)
        while !end.hasPassed {
            let now = try #require(Int(redis.command("TIME").split(separator: "\n").first ?? ""))
            let beats = try redis.command("ZRANGE", "gateway:nodes", "0", "-1", "WITHSCORES")
            let last = try #require(Int(beats.split(separator: "\n").last ?? ""))
            try #require(now - last <= 3, "not heard for \(now - last) s")
        }
    }

    @Test("a gateway ends in time, however many keys came in clear before a Redis that does not answer")
    func exposedKeysAndTheEnd() throws {
        let redis = try RedisServer()
        let gateway = try start(redis, try Upstream())
        redis.freeze()
        // The first few are taken one by one, and those that come meanwhile together.
        let end = Deadline(seconds: 4)
        while !end.hasPassed { try expose(10, to: gateway) }
        gateway.child.signal(SIGTERM)
        try Deadline(seconds: 8).wait("the end") { !gateway.child.isRunning }
    }
}
