import Testing

/// What breaks while callers keep asking.
@Suite("Under load", .serialized)
struct UnderLoadTests {
    private static let known = TestKey(secret: "sk_live_known", id: "", account: "", tier: "")

    @Test("Redis dies and returns, and callers with known keys do not notice", arguments: [true, false])
    func store(_ isKilled: Bool) throws {
        let redis = try RedisServer()
        try redis.store(Self.known.secret, ["tier": "enterprise", "account": "loaded"])
        try redis.command("SAVE")
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.store = "url: \"\(redis.url)\""
                $0.workers = 2
            })
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        #expect(try gateway.call(key: Self.known).status == 200)
        let callers = Callers(6, of: gateway, key: Self.known)
        try callers.wait(for: 300)
        if isKilled { redis.kill() } else { redis.freeze() }
        try Deadline(seconds: 5).wait("the outage") { try gateway.metric("gateway_store_up") == 0 }
        try callers.wait(for: 300)
        let fresh = TestKey(secret: "sk_live_fresh", id: "", account: "", tier: "")
        #expect(try gateway.call(key: fresh).status == 503)
        let again = isKilled ? try RedisServer(after: redis) : redis
        if !isKilled { redis.thaw() }
        let back = ContinuousClock.now
        try again.store(fresh.secret, ["tier": "pro"])
        try Deadline(seconds: 5).wait("the return") { try gateway.call(key: fresh).status == 200 }
        #expect(back.duration(to: .now) < .seconds(2))
        try callers.wait(for: 300)
        let calls = try callers.stop()
        #expect(calls.allSatisfy { $0.status == 200 })
        // The store's timeout is 250 ms; the rest is a test machine's, which may run this with a sanitizer.
        let longest = try #require(calls.map(\.duration).max())
        #expect(longest < .seconds(3))
    }

    @Test("an endpoint dies, and only calls under way may fail")
    func endpoint() throws {
        let (mortal, other) = (try Upstream(), try Upstream())
        let gateway = try Gateway(Setup(mortal, other))
        let callers = Callers(6, of: gateway, key: .enterprise)
        try callers.wait(for: 300)
        mortal.stop()
        try callers.wait(for: 600)
        let calls = try callers.stop()
        #expect(calls.allSatisfy { $0.status == 200 || $0.status == 502 })
        #expect(calls.count { $0.status == 502 } <= 6)
        #expect(try gateway.call().status == 200)
    }

    @Test("many callers at once get their own answers, small and large")
    func answersAreNotMixed() throws {
        let upstream = try Upstream { exchange in
            let request = try exchange.receiveBody()
            // Every fifth is large enough to leave without waiting for the end of the turn.
            let count = request.target.hasSuffix("0") || request.target.hasSuffix("5") ? 40_000 : 10
            let body = request.target + String(repeating: "x", count: count)
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        }
        let gateway = try Gateway(Setup(upstream))
        let threads = (0..<12).map { caller in
            TestThread {
                let client = try gateway.connect()
                for round in 0..<20 {
                    let targets = (0..<8).map { "/api/\(caller)-\(round * 8 + $0)" }
                    // Unknown paths are answered by the gateway itself, between the others.
                    let requests = targets.map { Gateway.request($0) + Gateway.request("/none/" + $0) }
                    try client.send(requests.joined())
                    for target in targets {
                        let response = try client.response()
                        let body = response.text
                        guard response.status == 200, body.hasPrefix(target),
                            body.dropFirst(target.count).first == "x"
                        else { throw HarnessError("\(target) was answered \(body.prefix(40))") }
                        guard try client.response().status == 404 else {
                            throw HarnessError("no 404 after \(target)")
                        }
                    }
                }
            }
        }
        for thread in threads { try thread.join(within: 60) }
    }
}
