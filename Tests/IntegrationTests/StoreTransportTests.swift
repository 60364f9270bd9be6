import Foundation
import Glibc
import Testing

/// The ways to Redis: TLS, a Unix socket, passwords.
@Suite("Ways to the store")
struct StoreTransportTests {
    private static let key = TestKey(secret: "sk_live_stored", id: "", account: "", tier: "")

    private func start(_ url: String, _ extra: String = "", launcher: [String] = []) throws -> Gateway {
        try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.launcher = launcher
                $0.store = "url: \"\(url)\"\n\(extra)"
            })
    }

    @Test(
        "keys, limits and revocation work over TLS and over a Unix socket, with a password",
        arguments: [RedisServer.Transport.tls, .unixSocket])
    func transports(_ transport: RedisServer.Transport) throws {
        let redis = try RedisServer(transport, password: "sesame-1")
        try redis.store(Self.key.secret, ["tier": "pro", "account": "stored", "limits": "2/minute"])
        let authority = transport == .tls ? "ca: \"\(try Certificate.shared.get().chainPath)\"" : ""
        let gateway = try start(redis.url, authority)
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        let statuses = try (0..<3).map { _ in try gateway.call(key: Self.key).status }
        #expect(statuses == [200, 200, 429])
        #expect(try redis.command("LLEN", "gateway:limit:{stored}:60s") == "2")
        try redis.command("DEL", "gateway:key:\(sha256Hexadecimal(Self.key.secret))")
        try Deadline(seconds: 1).wait("the revocation") { try gateway.call(key: Self.key).status == 401 }
    }

    @Test("a Redis that listens at one of its name's addresses only is found")
    func addresses() throws {
        let redis = try RedisServer()
        let hosts = try Hosts("127.0.0.1 two.test", "::1 two.test")
        let gateway = try start("redis://two.test:\(redis.port)", launcher: hosts.launcher)
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
    }

    @Test("a user of Redis that may do no more than it has to is enough")
    func user() throws {
        let redis = try RedisServer(user: "gateway", password: "sesame-5")
        try redis.store(Self.key.secret, ["tier": "pro", "account": "stored", "limits": "2/minute"])
        let gateway = try start(redis.url)
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        #expect(try (0..<3).map { _ in try gateway.call(key: Self.key).status } == [200, 200, 429])
        try redis.command("DEL", "gateway:key:\(sha256Hexadecimal(Self.key.secret))")
        try Deadline(seconds: 1).wait("the revocation") { try gateway.call(key: Self.key).status == 401 }
        #expect(!gateway.log.contains("NOPERM") && !gateway.log.contains("permission"))
        #expect(try redis.command("LLEN", "gateway:limit:{stored}:60s") == "2")
        #expect(try gateway.metricSum("gateway_ratelimit_total", holding: "degraded") == 0)
    }

    @Test("a Redis that may evict windows is warned about at the start, and by a check")
    func eviction() throws {
        let redis = try RedisServer(options: ["--maxmemory-policy", "volatile-lru"])
        let gateway = try start(redis.url)
        let warning = "maxmemory-policy is volatile-lru"
        try Deadline(seconds: 5).wait("the warning") { gateway.log.contains(warning) }
        let checked = try ChildProcess.run(
            try Gateway.binary(), ["check", "--live", "--config", gateway.configurationPath])
        #expect(checked.status == 0 && checked.error.contains(warning))
    }

    @Test("a path to an authority that only a new process takes has nothing read again and again")
    func movedAuthority() throws {
        let redis = try RedisServer(.tls)
        let folder = try TemporaryFolder()
        let chain = try Certificate.shared.get().chainPath
        let moved = try folder.write("moved.pem", try String(contentsOfFile: chain, encoding: .utf8))
        let gateway = try start(redis.url, "ca: \"\(chain)\"")
        try gateway.rewriteConfiguration { $0.replacing("ca: \"\(chain)\"", with: "ca: \"\(moved)\"") }
        try gateway.reload(to: 2)
        // Files are looked at every second, and a change is believed at the second look.
        poll(nil, 0, 3_500)
        #expect(try gateway.metric("gateway_config_generation") == 2)
    }

    @Test("a check says why Redis refuses, in its own words")
    func refusedPing() throws {
        let redis = try RedisServer(password: "sesame-3")
        let gateway = try start("redis://127.0.0.1:\(redis.port)/0")
        let checked = try ChildProcess.run(
            try Gateway.binary(), ["check", "--live", "--config", gateway.configurationPath])
        #expect(checked.status != 0 && checked.error.contains("NOAUTH"), "\(checked.error)")
        #expect(!checked.error.contains("not Redis"))
    }

    @Test("an authority that is replaced in its file is said to wait for a new process")
    func replacedAuthority() throws {
        let folder = try TemporaryFolder()
        let (main, other) = (try Certificate.shared.get(), try Certificate.other.get())
        func install(_ certificate: Certificate) throws {
            try folder.write("ca", try String(contentsOfFile: certificate.chainPath, encoding: .utf8))
        }
        try install(main)
        let redis = try RedisServer(.tls)
        let gateway = try start(redis.url, "ca: \"\(folder.path("ca"))\"")
        let warning = "store.ca stays as it was until the process is replaced (SIGUSR2)"
        try gateway.reload(to: 2)
        #expect(!gateway.log.contains(warning))
        try install(other)
        try Deadline(seconds: 10).wait("the warning") { gateway.log.contains(warning) }
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
    }

    @Test("a Redis whose certificate nobody vouches for is an outage, with the reason")
    func untrusted() throws {
        let redis = try RedisServer(.tls)
        let gateway = try start(redis.url)
        try Deadline(seconds: 5).wait("the reason") {
            gateway.log.contains("certificate verification failed")
        }
        #expect(try gateway.call(key: Self.key).status == 503)
    }

    @Test("a wrong password is an outage, with Redis's own words and without the password")
    func wrongPassword() throws {
        let redis = try RedisServer(password: "sesame-2")
        let gateway = try start(redis.url.replacing("sesame-2", with: "sesame-wrong"))
        try Deadline(seconds: 5).wait("the reason") { gateway.log.contains("WRONGPASS") }
        #expect(!gateway.log.contains("sesame"))
        let refused = try gateway.call(key: Self.key)
        #expect(refused.status == 503)
        #expect(refused["Retry-After"] != nil)
        #expect(try gateway.metric("gateway_store_up") == 0)
    }
}
