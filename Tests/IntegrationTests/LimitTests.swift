import Foundation
import Glibc
import Testing

/// Limits as callers see them.
@Suite("Limits", .serialized)
struct LimitTests {
    @Test("the 101st call of a minute waits, and is told how long to the second")
    func memory() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream).with { $0.workers = 2 })
        try exhaust(gateway, TestKey.standard.secret)
        #expect(upstream.requests.count == 100)
    }

    @Test("a key that another program wrote is limited in Redis")
    func redis() throws {
        let redis = try RedisServer()
        try redis.store("sk_live_abc123def456ghi789", ["tier": "standard"])
        let upstream = try Upstream()
        let gateway = try Gateway(
            Setup(upstream).with {
                $0.keys = []
                $0.store = "url: \"\(redis.url)\""
            })
        try exhaust(gateway, "sk_live_abc123def456ghi789")
        #expect(upstream.requests.count == 100)
    }

    private func exhaust(_ gateway: Gateway, _ secret: String) throws {
        let key = TestKey(secret: secret, id: "", account: "", tier: "")
        let client = try gateway.connect()
        for number in 1...100 {
            try client.send(Gateway.request(key: key))
            let response = try client.response()
            #expect(response.status == 200)
            #expect(response["RateLimit-Policy"] == "\"standard\";q=100;w=60")
            let limit = try #require(response["RateLimit"])
            #expect(limit.hasPrefix("\"standard\";r=\(100 - number);t="))
            let seconds = try #require(limit.split(separator: "=").last.flatMap { Int($0) })
            #expect((1...60).contains(seconds))
        }
        try client.send(Gateway.request(key: key))
        let refused = try client.response()
        #expect(refused.status == 429)
        let seconds = try #require(refused["Retry-After"].flatMap { Int($0) })
        #expect((50...60).contains(seconds))
        #expect(refused["RateLimit"] == "\"standard\";r=0;t=\(seconds)")
        let message = "Rate limit exceeded. Try again in \(seconds) seconds."
        #expect(refused.text == "{\"error\":{\"code\":\"RATE_LIMIT_EXCEEDED\",\"message\":\"\(message)\"}}")
    }

    @Test("what an account in steady demand has left goes down by one a call, on lease or not")
    func leftWhileLeased() throws {
        let redis = try RedisServer()
        try redis.store("sk_live_steady", ["tier": "standard", "account": "steady", "limits": "20000/hour"])
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.store = "url: \"\(redis.url)\"\ntimeout: 5s"
            })
        let client = try gateway.connect()
        let key = TestKey(secret: "sk_live_steady", id: "", account: "", tier: "")
        for number in 1...2_000 {
            try client.send(Gateway.request(key: key))
            let limit = try #require(try client.response()["RateLimit"])
            try #require(limit.hasPrefix("\"standard\";r=\(20_000 - number);t="), "call \(number): \(limit)")
        }
        // Most were spent from leases, and some came together with one.
        let calls = try redis.calls(of: "evalsha")
        #expect((2...1_000).contains(calls), "\(calls) calls of the script")
    }

    @Test("2,000 calls at once on two gateways with four workers admit exactly 100")
    func manyAtOnce() throws {
        let redis = try RedisServer()
        try redis.store("sk_live_crowd", ["tier": "standard", "account": "crowd"])
        let upstream = try Upstream()
        let setup = Setup(upstream).with {
            $0.keys = []
            $0.store = "url: \"\(redis.url)\"\ntimeout: 5s"
            $0.workers = 2
        }
        let gateways = [try Gateway(setup), try Gateway(setup)]
        let outcomes = Collected<Int>()
        let threads = gateways.map { gateway in
            TestThread {
                let statuses = try Curl.statuses(
                    "https://localhost:\(gateway.httpsPort)/api/x", key: "sk_live_crowd", count: 1_000,
                    atOnce: 200)
                outcomes.append(contentsOf: statuses)
            }
        }
        for thread in threads { try thread.join(within: 120) }
        #expect(outcomes.values.count == 2_000)
        #expect(outcomes.values.filter { $0 == 200 }.count == 100)
        #expect(outcomes.values.filter { $0 == 429 }.count == 1_900)
        #expect(upstream.requests.count == 100)
    }

    @Test("Retry-After is honest: refused before, admitted after", arguments: ["memory", "redis"])
    func honest(_ store: String) throws {
        let redis = store == "redis" ? try RedisServer() : nil
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.tiers = """
                    standard: { limits: [3/2s] }
                    pro: { limits: [9/second] }
                    enterprise: { limits: [9/second] }
                    """
                if let redis { $0.store = "url: \"\(redis.url)\"" }
            })
        let client = try gateway.connect()
        func call() throws -> Response {
            try client.send(Gateway.request(key: .standard))
            return try client.response()
        }
        for _ in 0..<3 { #expect(try call().status == 200) }
        let refused = try call()
        #expect(refused.status == 429)
        let seconds = try #require(refused["Retry-After"].flatMap { Int($0) })
        #expect(seconds == 2)
        let start = ContinuousClock.now
        var admitted = ContinuousClock.now
        try Deadline(seconds: 5).wait("a permit") {
            let isAdmitted = try call().status == 200
            admitted = .now
            return isAdmitted
        }
        let waited = start.duration(to: admitted)
        #expect(waited > .milliseconds(1_500) && waited < .milliseconds(2_900))
    }

    @Test("several windows are all or nothing, and a route may cost more")
    func windowsAndCost() throws {
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.tiers = """
                    standard: { limits: [10/minute, 4/hour] }
                    pro: { limits: [10/minute] }
                    enterprise: { limits: [10/minute] }
                    """
                $0.routes = [
                    "{ path: /api/**, upstream: main }", "{ path: /api/costly, cost: 4, upstream: main }",
                ]
            })
        let first = try gateway.call(key: .standard)
        #expect(first["RateLimit-Policy"] == "\"standard\";q=10;w=60, \"standard-3600s\";q=4;w=3600")
        for _ in 0..<3 { #expect(try gateway.call(key: .standard).status == 200) }
        let refused = try gateway.call(key: .standard)
        #expect(refused.status == 429)
        #expect(refused["RateLimit"]?.contains("\"standard\";r=6;") == true)
        for expected in [200, 200, 429] {
            #expect(try gateway.call("/api/costly", key: .pro).status == expected)
        }
        #expect(try gateway.call(key: .pro).status == 200)
    }

    @Test("a second key buys no second quota, and a record's own limits override its tier's")
    func accounts() throws {
        let redis = try RedisServer()
        for name in ["one", "two"] {
            try redis.store(
                "sk_live_\(name)", ["tier": "standard", "account": "shared", "limits": "2/minute"])
        }
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.store = "url: \"\(redis.url)\""
            })
        let one = TestKey(secret: "sk_live_one", id: "", account: "", tier: "")
        let two = TestKey(secret: "sk_live_two", id: "", account: "", tier: "")
        #expect(try gateway.call(key: one)["RateLimit-Policy"] == "\"standard\";q=2;w=60")
        #expect(try gateway.call(key: two).status == 200)
        #expect(try gateway.call(key: one).status == 429)
        #expect(try gateway.call(key: two).status == 429)
    }

    @Test("an answer for which nothing is spent tells the limits too", arguments: ["memory", "redis"])
    func spared(_ store: String) throws {
        let redis = store == "redis" ? try RedisServer() : nil
        func start() throws -> Gateway {
            let gateway = try Gateway(
                Setup(try Upstream()).with {
                    if let redis { $0.store = "url: \"\(redis.url)\"\ntimeout: 5s" }
                    $0.routes = [
                        "{ path: /api/**, methods: [GET, OPTIONS, POST], body: 4B, upstream: main }",
                        "{ path: /api/closed, scopes: [\"projects:read\"], upstream: main }",
                    ]
                })
            return gateway
        }
        let gateway = try start()
        func left(_ response: Response, _ status: Int) -> Substring? {
            #expect(response.status == status)
            #expect(response["RateLimit-Policy"] == "\"standard\";q=100;w=60")
            return response["RateLimit"]?.split(separator: ";").dropFirst().first
        }
        #expect(left(try gateway.call("/api/closed", key: .standard), 403) == "r=100")
        #expect(left(try gateway.call("/nowhere", key: .standard), 404) == "r=100")
        #expect(left(try gateway.call(key: .standard), 200) == "r=99")
        #expect(left(try gateway.call(key: .standard, method: "DELETE"), 405) == "r=99")
        #expect(left(try gateway.call(key: .standard, method: "POST", body: "12345"), 413) == "r=99")
        let last = try gateway.call(key: .standard, method: "OPTIONS", fields: "Max-Forwards: 0\r\n")
        #expect(left(last, 200) == "r=99")
        // Counted once each, though the heads may have been read twice.
        #expect(try gateway.metricSum("gateway_auth_total", holding: "\"ok\"") == 6)
        guard redis != nil else { return }
        // A gateway that has seen nothing of the account asks.
        #expect(left(try start().call("/nowhere", key: .standard), 404) == "r=99")
    }

    @Test("a refusal tells its key's limits while calls of another key of the account are asked about")
    func sparedBesideAnother() throws {
        let redis = try RedisServer()
        try redis.store("sk_live_busy", ["tier": "standard", "account": "shared", "limits": "100000/hour"])
        try redis.store("sk_live_spared", ["tier": "standard", "account": "shared", "limits": "50/minute"])
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.store = "url: \"\(redis.url)\"\ntimeout: 5s"
            })
        let busy = TestKey(secret: "sk_live_busy", id: "", account: "", tier: "")
        let spared = TestKey(secret: "sk_live_spared", id: "", account: "", tier: "")
        #expect(try gateway.call(key: busy).status == 200)
        #expect(try gateway.call("/nowhere", key: spared)["RateLimit"]?.contains(";r=50;") == true)
        // In steady demand, so that permits are on lease again and again.
        let isOver = Collected<Bool>()
        let statuses = Collected<Int>()
        for _ in 0..<8 {
            let thread = Thread {
                guard let caller = try? gateway.connect() else { return }
                while isOver.values.isEmpty {
                    guard (try? caller.send(Gateway.request(key: busy))) != nil,
                        let response = try? caller.response()
                    else { return }
                    statuses.append(contentsOf: [response.status])
                }
            }
            thread.start()
        }
        defer { isOver.append(contentsOf: [true]) }
        try Deadline(seconds: 9).wait("demand") { statuses.values.count > 500 }
        let looker = try gateway.connect()
        for _ in 0..<10 {
            // Meanwhile the other key's lease is renewed.
            poll(nil, 0, 300)
            let start = ContinuousClock.now
            try looker.send(Gateway.request("/nowhere", key: spared))
            let refused = try looker.response()
            #expect(refused["RateLimit"]?.contains(";r=50;") == true, "\(refused)")
            // A report of the lease and an answer of its own, but not the lease's end.
            #expect(start.duration(to: .now) < .milliseconds(200))
        }
        #expect(statuses.values.allSatisfy { $0 == 200 })
    }

    @Test("a Redis that stands still holds up no refusal")
    func sparedWithoutStore() throws {
        let redis = try RedisServer()
        let gateway = try Gateway(
            Setup(try Upstream()).with { $0.store = "url: \"\(redis.url)\"\ntimeout: 250ms" })
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        redis.freeze()
        let refused = try gateway.call("/nowhere", key: .standard)
        #expect(refused.status == 404)
        #expect(refused["RateLimit"]?.contains(";r=100;") == true)
    }

    @Test("a dearer call on an empty account is told its own wait", arguments: ["memory", "redis"])
    func dearer(_ store: String) throws {
        let redis = store == "redis" ? try RedisServer() : nil
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.tiers = """
                    standard: { limits: [10/8s] }
                    pro: { limits: [9/second] }
                    enterprise: { limits: [9/second] }
                    """
                $0.routes = [
                    "{ path: /api/**, upstream: main }", "{ path: /api/costly, cost: 5, upstream: main }",
                ]
                if let redis { $0.store = "url: \"\(redis.url)\"\ntimeout: 5s" }
            })
        let client = try gateway.connect()
        func call(_ target: String = "/api/x") throws -> Response {
            try client.send(Gateway.request(target, key: .standard))
            return try client.response()
        }
        #expect(try call().status == 200)
        // The first permit comes back this much before the others.
        poll(nil, 0, 3_000)
        for _ in 0..<9 { #expect(try call().status == 200) }
        let cheap = try call()
        let dear = try call("/api/costly")
        #expect(cheap.status == 429 && dear.status == 429)
        let cheapWait = try #require(cheap["Retry-After"].flatMap { Int($0) })
        let dearWait = try #require(dear["Retry-After"].flatMap { Int($0) })
        #expect(dearWait >= cheapWait + 2 && dearWait <= 8)
    }
}
