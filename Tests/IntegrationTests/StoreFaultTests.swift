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
}
