import Foundation
import Testing

/// How long a key goes on after it should have stopped.
@Suite("Revocation", .serialized)
struct RevocationTests {
    private static let key = TestKey(secret: "sk_live_streaming", id: "", account: "", tier: "")
    private static var name: String { "gateway:key:\(sha256Hexadecimal(key.secret))" }

    /// An answer that goes on for as long as the gateway lets it.
    static let endless: Upstream.Script = { exchange in
        try exchange.receiveBody()
        if exchange.request.target == "/api/short" {
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        }
        try exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while true {
            try exchange.send("5\r\ntick\n\r\n")
            poll(nil, 0, 20)
        }
    }

    private func start(_ redis: RedisServer, port: UInt16? = nil, workers: Int = 2) throws -> Gateway {
        try redis.store(Self.key.secret, ["tier": "enterprise", "account": "stream"])
        let gateway = try Gateway(
            Setup(try Upstream(Self.endless)).with {
                $0.keys = []
                $0.store = "url: \"redis://127.0.0.1:\(port ?? redis.port)\""
                $0.workers = workers
            })
        try Deadline(seconds: 5).wait("changes to be heard") {
            try gateway.metric("gateway_revocation_lag_seconds").map { $0 < 1 } ?? false
        }
        return gateway
    }

    private func stream(_ gateway: Gateway) throws -> TLSClient { try Self.stream(gateway, Self.key) }

    /// A caller in the middle of an endless answer.
    static func stream(_ gateway: Gateway, _ key: TestKey) throws -> TLSClient {
        let client = try gateway.connect()
        try client.send(Gateway.request("/api/endless", key: key))
        let head = try client.head()
        #expect(head.startLine.hasPrefix("HTTP/1.1 200"))
        _ = try client.take(10)
        return client
    }

    /// Reads on until the gateway ends the connection.
    private func awaitEnd(of client: TLSClient) throws {
        try Deadline(seconds: 5).wait("the end of the answer") { (try? client.take(5)) == nil }
    }

    @Test(
        "an answer under way ends within a second of its key's end",
        arguments: ["revoked", "disabled", "deleted", "unusable", "expired"])
    func streams(_ how: String) throws {
        let redis = try RedisServer()
        let gateway = try start(redis)
        let client = try stream(gateway)
        // A record that changed before must not hide the change after it.
        try redis.command("HSET", Self.name, "name", "renamed")
        try Deadline(seconds: 5).wait("a call with the new record") {
            try gateway.call("/api/short", key: Self.key).status == 200
        }
        _ = try client.take(10)
        var due = ContinuousClock.now
        switch how {
        case "deleted": try redis.command("DEL", Self.name)
        case "unusable": try redis.command("HSET", Self.name, "tier", "none")
        case "expired":
            let second = Int64(Date().timeIntervalSince1970) + 2
            due = .now + .milliseconds(Int64((Double(second) - Date().timeIntervalSince1970) * 1_000))
            try redis.command("HSET", Self.name, "expires_at", "\(second)")
        default: try redis.command("HSET", Self.name, "status", how)
        }
        try awaitEnd(of: client)
        let lateness = due.duration(to: .now)
        #expect(lateness < .seconds(1))
        #expect(gateway.child.isRunning)
        #expect(try gateway.call("/api/short", key: Self.key).status == 401)
    }

    @Test(
        "an answer under way ends within a second when the configuration ends its key",
        arguments: ["memory", "redis"],
        ["status: revoked", "status: disabled", "expires_at: 1000", "removed"])
    func declared(_ store: String, _ change: String) throws {
        let redis = store == "redis" ? try RedisServer() : nil
        let gateway = try Gateway(
            Setup(try Upstream(Self.endless)).with {
                if let redis { $0.store = "url: \"\(redis.url)\"" }
                $0.workers = 2
            })
        try Deadline(seconds: 5).wait("the store") {
            try redis == nil || gateway.metric("gateway_store_up") == 1
        }
        let client = try Self.stream(gateway, .enterprise)
        let other = try Self.stream(gateway, .pro)
        try gateway.rewriteConfiguration { text in
            guard change == "removed" else {
                return text.replacing("id: key_ent,", with: "id: key_ent, \(change),")
            }
            return text.split(separator: "\n").filter { !$0.contains("key_ent") }.map { $0 + "\n" }.joined()
        }
        try gateway.reload(to: 2)
        let start = ContinuousClock.now
        try awaitEnd(of: client)
        #expect(start.duration(to: .now) < .seconds(1))
        #expect(try gateway.call("/api/short", key: .enterprise).status == 401)
        _ = try other.take(200)
        #expect(try gateway.call("/api/short", key: .pro).status == 200)
    }

    @Test("an answer under way ends within a second when its key, made without a store, is revoked")
    func inMemory() throws {
        let tokens = try AdminTokens.shared.get()
        let gateway = try Gateway(Setup(try Upstream(Self.endless)).with { $0.admin += tokens.lines })
        let made = try gateway.generate("{\"tier\":\"enterprise\",\"account\":\"acme\",\"name\":\"ci\"}")
        let key = TestKey(
            secret: try #require(made["key"] as? String), id: try #require(made["id"] as? String),
            account: "acme", tier: "enterprise")
        try Deadline(seconds: 3).wait("the key") { try gateway.call("/api/short", key: key).status == 200 }
        let client = try Self.stream(gateway, key)
        let revoked = try gateway.manage("POST", "/v1/keys/\(key.id)/revoke", json: "{\"reason\":\"leak\"}")
        #expect(revoked.status == 200)
        let start = ContinuousClock.now
        try awaitEnd(of: client)
        #expect(start.duration(to: .now) < .seconds(1))
    }

    @Test("an answer under way goes on when its key changes and stays good")
    func unharmed() throws {
        let redis = try RedisServer()
        let gateway = try start(redis)
        let client = try stream(gateway)
        for change in [["tier", "pro"], ["scopes", "a b"], ["limits", "7/minute"], ["name", "x"]] {
            try redis.command("HSET", Self.name, change[0], change[1])
            _ = try client.take(40)
        }
        try redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        _ = try client.take(400)
    }

    @Test("a revocation that is not heard, because its connection is silent, acts within 1.3 s")
    func silence() throws {
        let redis = try RedisServer()
        let relay = try Relay(to: redis.port)
        let gateway = try start(redis, port: relay.port)
        let client = try stream(gateway)
        #expect(try gateway.call("/api/short", key: Self.key).status == 200)
        #expect(relay.cut(carrying: "TRACKING") == 1)
        try redis.command("HSET", Self.name, "status", "revoked")
        let start = ContinuousClock.now
        try Deadline(seconds: 5).wait("the revocation") {
            try gateway.call("/api/short", key: Self.key).status == 401
        }
        #expect(start.duration(to: .now) < .milliseconds(1_300))
        try awaitEnd(of: client)
        #expect(start.duration(to: .now) < .milliseconds(1_300))
    }

    @Test(
        "an answer under way ends within a second of its key's revocation, though no connection tells of it",
        arguments: ["silent", "deaf"])
    func unheard(_ how: String) throws {
        let redis = try RedisServer()
        let relay = try Relay(to: redis.port)
        if how == "deaf" { try redis.command("ACL", "SETUSER", "default", "-client|tracking") }
        try redis.store(Self.key.secret, ["tier": "enterprise", "account": "stream"])
        let gateway = try Gateway(
            Setup(try Upstream(Self.endless)).with {
                $0.keys = []
                $0.store = "url: \"redis://127.0.0.1:\(relay.port)\""
            })
        try Deadline(seconds: 5).wait("the key, and news of changes") {
            let lag = try gateway.metric("gateway_revocation_lag_seconds") ?? 9
            return try gateway.call("/api/short", key: Self.key).status == 200 && (how == "deaf" || lag < 1)
        }
        let clients = try (0..<3).map { _ in try stream(gateway) }
        if how == "silent" { #expect(relay.cut(carrying: "TRACKING") == 1) }
        try redis.command("HSET", Self.name, "status", "revoked")
        let start = ContinuousClock.now
        for client in clients { try awaitEnd(of: client) }
        #expect(start.duration(to: .now) < .milliseconds(1_000))
    }

    @Test("what was revoked while Redis was away for long acts within a second of its return")
    func afterOutage() throws {
        let redis = try RedisServer()
        let gateway = try start(redis)
        let client = try stream(gateway)
        redis.kill()
        // The attempts to reach it are as far apart by then as they ever are.
        try Deadline(seconds: 10).wait("an outage of 3 s") {
            try gateway.metric("gateway_revocation_lag_seconds") ?? 0 > 3
        }
        _ = try client.take(10)
        // It comes back without the key.
        let again = try RedisServer(after: redis)
        let start = ContinuousClock.now
        try awaitEnd(of: client)
        #expect(start.duration(to: .now) < .milliseconds(1_000))
        #expect(try again.command("PING") == "PONG")
    }

    @Test("without news of changes at all, a revocation acts within a second")
    func deaf() throws {
        let redis = try RedisServer()
        try redis.command("ACL", "SETUSER", "default", "-client|tracking")
        try redis.store(Self.key.secret, ["tier": "enterprise", "account": "stream"])
        let gateway = try Gateway(
            Setup(try Upstream(Self.endless)).with {
                $0.keys = []
                $0.store = "url: \"\(redis.url)\""
            })
        try Deadline(seconds: 5).wait("the key") {
            try gateway.call("/api/short", key: Self.key).status == 200
        }
        let client = try stream(gateway)
        try redis.command("HSET", Self.name, "status", "revoked")
        let start = ContinuousClock.now
        try Deadline(seconds: 5).wait("the revocation") {
            try gateway.call("/api/short", key: Self.key).status == 401
        }
        #expect(start.duration(to: .now) < .milliseconds(1_300))
        try awaitEnd(of: client)
        #expect(start.duration(to: .now) < .milliseconds(1_300))
    }

    @Test("a key without calls under way is not looked up when it changes, and one with is once")
    func costs() throws {
        let redis = try RedisServer()
        let gateway = try start(redis, workers: 1)
        #expect(try gateway.call("/api/short", key: Self.key).status == 200)
        func lookups() throws -> Double {
            try gateway.metric("gateway_store_duration_seconds_count{command=\"lookup\"}") ?? 0
        }
        let before = try lookups()
        for number in 0..<5 { try redis.command("HSET", Self.name, "name", "n\(number)") }
        #expect(try gateway.call("/api/short", key: Self.key).status == 200)
        #expect(try lookups() == before + 1)
        let client = try stream(gateway)
        try redis.command("HSET", Self.name, "name", "during")
        try Deadline(seconds: 5).wait("the look-up") { try lookups() == before + 2 }
        _ = try client.take(100)
        #expect(try lookups() == before + 2)
    }
}
