import Testing

/// Redis stopped, frozen, restarted, or full of nonsense.
@Suite("Store", .serialized)
struct StoreTests {
    private static let key = TestKey(secret: "sk_live_stored", id: "", account: "", tier: "")

    private func start(
        _ redis: RedisServer, _ extra: String = "", _ change: (inout Setup) -> Void = { _ in }
    ) throws -> Gateway {
        try redis.store(Self.key.secret, ["tier": "pro", "account": "stored", "scopes": "a:*"])
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.store = "url: \"\(redis.url)\"\n\(extra)"
                change(&$0)
            })
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        return gateway
    }

    @Test("a revoked key is refused at once", arguments: ["status", "deleted"])
    func revocation(_ how: String) throws {
        let redis = try RedisServer()
        let gateway = try start(redis)
        #expect(try gateway.call(key: Self.key).status == 200)
        let name = "gateway:key:\(sha256Hexadecimal(Self.key.secret))"
        if how == "status" {
            try redis.command("HSET", name, "status", "revoked")
        } else {
            try redis.command("DEL", name)
        }
        try Deadline(seconds: 1).wait("the revocation") { try gateway.call(key: Self.key).status == 401 }
    }

    @Test("a key that is created after it was refused works at once")
    func creation() throws {
        let redis = try RedisServer()
        let gateway = try start(redis)
        let fresh = TestKey(secret: "sk_live_fresh", id: "", account: "", tier: "")
        #expect(try gateway.call(key: fresh).status == 401)
        try redis.store(fresh.secret, ["tier": "pro"])
        try Deadline(seconds: 1).wait("the creation") { try gateway.call(key: fresh).status == 200 }
    }

    @Test(
        "a record that cannot be used refuses its key and says why",
        arguments: [
            ["tier": "profesional"], ["account": "x"], ["tier": "pro", "expires_at": "soon"],
            ["tier": "pro", "status": "asleep"], ["tier": "pro", "limits": "many"],
        ])
    func unusable(_ fields: [String: String]) throws {
        let redis = try RedisServer()
        let gateway = try start(redis)
        let bad = TestKey(secret: "sk_live_bad", id: "", account: "", tier: "")
        try redis.store(bad.secret, fields)
        #expect(try gateway.call(key: bad).status == 401)
        let id = "key_" + sha256Hexadecimal(bad.secret).prefix(16)
        try Deadline(seconds: 5).wait("the reason") {
            gateway.log.contains(id) && gateway.log.contains("refused")
        }
        #expect(!gateway.log.contains(bad.secret))
        #expect(try gateway.metric("gateway_key_record_problems_total") == 1)
    }

    @Test("a record of the wrong type refuses its key")
    func wrongType() throws {
        let redis = try RedisServer()
        let gateway = try start(redis)
        let bad = TestKey(secret: "sk_live_bad", id: "", account: "", tier: "")
        try redis.command("SET", "gateway:key:\(sha256Hexadecimal(bad.secret))", "x")
        #expect(try gateway.call(key: bad).status == 401)
        #expect(try gateway.call(key: Self.key).status == 200)
    }

    @Test("how late a revocation can be is measured, and grows while Redis is silent")
    func revocationLag() throws {
        let redis = try RedisServer()
        let gateway = try start(redis)
        try Deadline(seconds: 5).wait("a proof") {
            try gateway.metric("gateway_revocation_lag_seconds").map { $0 < 1 } ?? false
        }
        redis.freeze()
        try Deadline(seconds: 10).wait("the lag") {
            try gateway.metric("gateway_revocation_lag_seconds").map { $0 > 2 } ?? false
        }
    }

    @Test("the last use of a key is written down")
    func lastUse() throws {
        let redis = try RedisServer()
        let gateway = try start(redis)
        #expect(try gateway.call(key: Self.key).status == 200)
        let id = "key_" + sha256Hexadecimal(Self.key.secret).prefix(16)
        try Deadline(seconds: 5).wait("the note") {
            try Int(redis.command("HGET", "gateway:seen", id)) != nil
        }
    }

    @Test("a body that is too large costs no permit")
    func tooLargeIsFree() throws {
        let redis = try RedisServer()
        let gateway = try start(redis)
        #expect(
            try gateway.call(key: Self.key, method: "POST", fields: "Content-Length: 99999999\r\n").status
                == 413)
        #expect(try redis.command("EXISTS", "gateway:limit:{stored}:60s") == "0")
    }

    @Test("an expired key is refused")
    func expired() throws {
        let redis = try RedisServer()
        let gateway = try start(redis)
        let old = TestKey(secret: "sk_live_old", id: "", account: "", tier: "")
        try redis.store(old.secret, ["tier": "pro", "expires_at": "1000000000"])
        #expect(try gateway.call(key: old).status == 401)
        #expect(try gateway.metric("gateway_auth_total{result=\"expired\"}") == 1)
    }

    @Test(
        "while Redis is dead known keys serve and unknown keys get 503; it is back within 2 s",
        arguments: [true, false])
    func outage(_ isKilled: Bool) throws {
        let redis = try RedisServer()
        let gateway = try start(redis)
        #expect(try gateway.call(key: Self.key).status == 200)
        if isKilled { redis.kill() } else { redis.freeze() }
        let before = ContinuousClock.now
        #expect(try gateway.call(key: Self.key).status == 200)
        #expect(before.duration(to: .now) < .seconds(1))
        try Deadline(seconds: 5).wait("the outage") { try gateway.metric("gateway_store_up") == 0 }
        let other = TestKey(secret: "sk_live_other", id: "", account: "", tier: "")
        let refused = try gateway.call(key: other)
        #expect(refused.status == 503)
        #expect(refused["Retry-After"] != nil)
        #expect(try gateway.admin("/readyz").text.contains("warn"))
        let again = isKilled ? try RedisServer(port: redis.port) : redis
        if !isKilled { redis.thaw() }
        let back = ContinuousClock.now
        try again.store(other.secret, ["tier": "pro"])
        try Deadline(seconds: 5).wait("the return") { try gateway.call(key: other).status == 200 }
        #expect(back.duration(to: .now) < .seconds(2))
    }

    @Test("a key that one worker knows is known to all while Redis is away, and its revocation too")
    func knownToAllWorkers() throws {
        let redis = try RedisServer()
        let gateway = try start(redis) { $0.workers = 4 }
        let revoked = TestKey(secret: "sk_live_revoked", id: "", account: "", tier: "")
        try redis.store(revoked.secret, ["tier": "pro"])
        // Connections are spread over the workers by the kernel: one call reaches one of them.
        #expect(try gateway.call(key: Self.key).status == 200)
        #expect(try gateway.call(key: revoked).status == 200)
        try redis.command("DEL", "gateway:key:\(sha256Hexadecimal(revoked.secret))")
        try Deadline(seconds: 1).wait("the revocation") { try gateway.call(key: revoked).status == 401 }
        redis.kill()
        try Deadline(seconds: 5).wait("the outage") { try gateway.metric("gateway_store_up") == 0 }
        for _ in 0..<24 {
            #expect(try gateway.call(key: Self.key).status == 200)
            #expect([401, 503].contains(try gateway.call(key: revoked).status))
        }
    }

    @Test("closed answers 503 without Redis, open forwards", arguments: ["closed", "open"])
    func modes(_ mode: String) throws {
        let redis = try RedisServer()
        let gateway = try start(redis, "on_outage: \(mode)")
        #expect(try gateway.call(key: Self.key).status == 200)
        redis.kill()
        try Deadline(seconds: 5).wait("the outage") { try gateway.metric("gateway_store_up") == 0 }
        #expect(try gateway.call(key: Self.key).status == (mode == "open" ? 200 : 503))
    }

    @Test("a script that Redis has forgotten is loaded again, and no call is decided without Redis")
    func scriptFlush() throws {
        let redis = try RedisServer()
        let gateway = try start(redis)
        for calls in 1...3 {
            #expect(try gateway.call(key: Self.key).status == 200)
            try redis.command("SCRIPT", "FLUSH")
            // How many entries it has depends on how fast the calls are: leases stand for many.
            #expect(try redis.command("EXISTS", "gateway:limit:{stored}:60s") == "1", "call \(calls)")
        }
        #expect(try gateway.metricSum("gateway_ratelimit_total", holding: "degraded") == 0)
    }

    @Test("a Redis that comes back with nothing makes no limit anew", arguments: [1, 2])
    func emptyRestart(_ count: Int) throws {
        let redis = try RedisServer()
        let setup = Setup(try Upstream()).with {
            $0.keys[0] = TestKey(secret: "sk_live_kept", id: "key_kept", account: "kept", tier: "standard")
            $0.tiers = $0.tiers.replacing("100/minute", with: "10/minute")
            $0.store = "url: \"\(redis.url)\""
        }
        let gateways = try (0..<count).map { _ in try Gateway(setup) }
        for gateway in gateways {
            try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        }
        // Every node has to be known before each knows its share.
        try Deadline(seconds: 5).wait("the heartbeats") {
            try redis.command("ZCARD", "gateway:nodes") == "\(count)"
        }
        let beats = try redis.command("ZRANGE", "gateway:nodes", "0", "-1", "WITHSCORES")
        try Deadline(seconds: 5).wait("the next heartbeats") {
            try redis.command("ZRANGE", "gateway:nodes", "0", "-1", "WITHSCORES") != beats
        }
        var admitted = 0
        for _ in 0..<6 where try gateways[0].call(key: setup.keys[0]).status == 200 { admitted += 1 }
        #expect(admitted == 6)
        redis.kill()
        for gateway in gateways {
            try Deadline(seconds: 5).wait("the outage") { try gateway.metric("gateway_store_up") == 0 }
        }
        let empty = try RedisServer(port: redis.port)
        for gateway in gateways {
            try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        }
        for _ in 0..<10 {
            for gateway in gateways where try gateway.call(key: setup.keys[0]).status == 200 { admitted += 1 }
        }
        // The first has told Redis what it had let in.
        #expect(admitted == 10)
        #expect(try empty.command("LINDEX", "gateway:limit:{kept}:60s", "0").hasPrefix("r:10@"))
    }

    @Test("what is not Redis is an outage, not a crash")
    func notRedis() throws {
        let impostor = try Upstream(Upstream.respond("HTTP/1.1 400 Bad Request\r\n\r\n"))
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.store = "url: \"redis://127.0.0.1:\(impostor.port)\""
            })
        #expect(try gateway.call(key: .enterprise).status == 200)
        #expect(try gateway.call(key: Self.key).status == 503)
    }
}
