import Testing

/// A master that sentinels name, and that may be another one the next moment.
@Suite("Sentinel", .serialized)
struct SentinelTests {
    private static let key = TestKey(secret: "sk_live_watched", id: "", account: "", tier: "")
    private static let fresh = TestKey(secret: "sk_live_fresh", id: "", account: "", tier: "")

    private func start(_ sentinels: RedisSentinels, workers: Int = 2) throws -> Gateway {
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.store = "url: \"\(sentinels.url)\""
                $0.workers = workers
            })
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        return gateway
    }

    @Test("keys, limits and revocation work at the master that sentinels name, with a password")
    func works() throws {
        let sentinels = try RedisSentinels(password: "sesame-3")
        let master = sentinels.master
        try master.store(Self.key.secret, ["tier": "pro", "account": "watched", "limits": "2/minute"])
        let gateway = try start(sentinels)
        #expect(try (0..<3).map { _ in try gateway.call(key: Self.key).status } == [200, 200, 429])
        #expect(try master.command("LLEN", "gateway:limit:{watched}:60s") == "2")
        try master.command("DEL", "gateway:key:\(sha256Hexadecimal(Self.key.secret))")
        try Deadline(seconds: 1).wait("the revocation") { try gateway.call(key: Self.key).status == 401 }
        // A sentinel less is no loss.
        sentinels.kill(0)
        let outcome = try ChildProcess.run(
            try Gateway.binary(), ["check", "--live", "--config", gateway.configurationPath])
        #expect(outcome.status == 0, "\(outcome.error)")
    }

    @Test("the master dies under load, and callers with known keys do not notice; the next one is followed")
    func failover() throws {
        let sentinels = try RedisSentinels()
        try sentinels.master.store(Self.key.secret, ["tier": "enterprise", "account": "watched"])
        let gateway = try start(sentinels)
        #expect(try gateway.call(key: Self.key).status == 200)
        let callers = Callers(4, of: gateway, key: Self.key)
        let limited = TestKey(secret: "sk_live_limited", id: "", account: "", tier: "")
        try sentinels.master.store(limited.secret, ["tier": "pro", "account": "limited", "limits": "30/2s"])
        let admissions = Admissions(2, of: gateway, key: limited)
        try admissions.wait(for: 40)
        try callers.wait(for: 200)
        sentinels.master.kill()
        try Deadline(seconds: 5).wait("the outage") { try gateway.metric("gateway_store_up") == 0 }
        try Deadline(seconds: 20).wait("the next master") { try gateway.metric("gateway_store_up") == 1 }
        let back = ContinuousClock.now
        try sentinels.replica.store(Self.fresh.secret, ["tier": "pro", "account": "fresh"])
        try Deadline(seconds: 2).wait("a new key") { try gateway.call(key: Self.fresh).status == 200 }
        #expect(back.duration(to: .now) < .seconds(2))
        let head = try sentinels.replica.command("LINDEX", "gateway:limit:{fresh}:60s", "0")
        #expect(head.hasPrefix("r:1@"))
        try callers.wait(for: 200)
        #expect(try callers.stop().allSatisfy { $0.status == 200 })
        // One gateway is as exact as ever: before, without Redis, and with one that has lost the last writes.
        try admissions.wait(for: 100)
        let calls = try admissions.stop()
        #expect(Set(calls.map(\.status)) == [200, 429])
        #expect(calls.worst(in: 2_000_000) <= 30)
        #expect(calls.rate > 10, "\(calls.rate)")
        // Changes are heard from the new master, and its predecessor's history is known to have ended.
        try sentinels.replica.command("DEL", "gateway:key:\(sha256Hexadecimal(Self.fresh.secret))")
        try Deadline(seconds: 1).wait("the revocation") { try gateway.call(key: Self.fresh).status == 401 }
        #expect(gateway.log.contains("its latest writes may be lost"))
        #expect(try gateway.metric("gateway_store_generations_total") == 1)
    }

    @Test("a master that is demoted while it lives is left at once")
    func demoted() throws {
        let sentinels = try RedisSentinels()
        try sentinels.master.store(Self.key.secret, ["tier": "enterprise", "account": "watched"])
        let gateway = try start(sentinels)
        #expect(try gateway.call(key: Self.key).status == 200)
        try sentinels.sentinel(0, "SENTINEL", "FAILOVER", "mymaster")
        try Deadline(seconds: 20).wait("the demotion") {
            // It lets go of its clients when it is demoted.
            (try? sentinels.master.command("ROLE"))?.hasPrefix("slave") ?? false
        }
        try Deadline(seconds: 5).wait("decisions at the new master") {
            let before = Int(try sentinels.replica.command("LLEN", "gateway:limit:{watched}:60s")) ?? 0
            guard try gateway.call(key: Self.key).status == 200 else { return false }
            return Int(try sentinels.replica.command("LLEN", "gateway:limit:{watched}:60s")) == before + 1
        }
        try sentinels.replica.command("DEL", "gateway:key:\(sha256Hexadecimal(Self.key.secret))")
        try Deadline(seconds: 2).wait("the revocation") { try gateway.call(key: Self.key).status == 401 }
    }

    @Test("sentinels that know no such master are an outage, with the reason")
    func unknownMaster() throws {
        let sentinels = try RedisSentinels()
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.store = "url: \"\(sentinels.url)-2\""
            })
        try Deadline(seconds: 5).wait("the reason") {
            gateway.log.contains("knows no master named mymaster-2")
        }
        #expect(try gateway.call(key: Self.key).status == 503)
        let outcome = try ChildProcess.run(
            try Gateway.binary(), ["check", "--live", "--config", gateway.configurationPath])
        #expect(outcome.status == 78 && outcome.error.contains("knows no master named mymaster-2"))
    }
}
