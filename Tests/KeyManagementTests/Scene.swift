import Configuration
import KeyManagement
import Keys
import Reactor
import Redis
import TestSupport
import Testing

/// Files that exist only here.
struct FakeFiles: FileAccess {
    func read(_ path: String) -> Result<[UInt8], FileProblem> {
        .success(Array((path.contains("pepper") ? "a pepper of more than thirty-two bytes\n" : "x\n").utf8))
    }
}

/// A store in a Redis of the test's own, and another program's view of it.
struct Scene {
    static let staticDigest = String(repeating: "ab", count: 32)
    static let actor = Actor(name: "tester", origin: "a test")

    let server: RedisServer
    let configuration: GatewayConfiguration
    let store: KeyStore
    let redis: RedisClient

    /// - Parameter spreads: whether the store is treated as a cluster, in which no script spans two names.
    init(user: String = "", keys: String = "", spreads: Bool = false) throws {
        server = try RedisServer()
        redis = try Self.client(port: Int(server.port))
        if !user.isEmpty {
            _ = try redis.command(
                ["ACL", "SETUSER", "limited", "on", ">pw", "~*"] + user.split(separator: " ").map(String.init)
            )
        }
        let login = user.isEmpty ? "" : "limited:pw@"
        configuration = try Self.configuration("redis://\(login)127.0.0.1:\(server.port)/0", keys: keys)
        store = try KeyStore(configuration, timeoutMilliseconds: 5_000, spreads: spreads)
    }

    /// A way to the Redis on this port.
    static func client(port: Int) throws -> RedisClient {
        try RedisClient(
            StoreOptions(
                transport: .tcp(host: "127.0.0.1", port: port, tls: false),
                credentials: StoreCredentials(user: nil, password: nil), database: 0, caPath: nil),
            timeoutMilliseconds: 5_000)
    }

    /// Another program that manages the same keys.
    func another(spreads: Bool = false) throws -> KeyStore {
        try KeyStore(configuration, timeoutMilliseconds: 5_000, spreads: spreads)
    }

    static func configuration(_ url: String, keys: String = "") throws -> GatewayConfiguration {
        try ConfigurationLoader.load(
            text: """
                listen:
                  https:
                    address: "0.0.0.0:8443"
                    certificates:
                      - { chain: /c.pem, private_key: /k.pem }
                store: { url: "\(url)" }
                keys:
                  static:
                    - sha256: "\(staticDigest)"
                      id: key_ci
                      account: acme
                      tier: pro
                      scopes: ["projects:*"]
                \(keys)
                tiers:
                  standard: { limits: [100/minute] }
                  pro: { limits: [1000/minute] }
                upstreams:
                  main: { endpoints: ["http://127.0.0.1:3000"] }
                routes:
                  - { path: /api/**, upstream: main }

                """, fileName: "gateway.conf", environment: [:], files: FakeFiles(), processors: 2)
    }

    static func request(
        account: String? = "acme", tier: String = "pro", scopes: String = "projects:read",
        name: String? = "ci",
        expires: Int64? = nil, limits: String? = nil
    ) throws -> KeyRequest {
        KeyRequest(
            account: account, tier: tier, scopes: try #require(ScopeSet(text: scopes)), name: name,
            expiresAtSeconds: expires, limits: limits)
    }

    /// Creates a key.
    func create(_ request: KeyRequest) throws -> (record: KeyRecord, secret: String) {
        let created = try store.create(request, by: Self.actor)
        let secret = created.reveal()
        return (created.key.record, try #require(secret))
    }

    func fields(_ digest: String) throws -> [String: String] {
        let fields = try #require(try redis.command(["HGETALL", "gateway:key:\(digest)"]).fields)
        return Dictionary(uniqueKeysWithValues: fields.map { ($0.name, $0.value) })
    }

    /// Every id that a listing shows, page by page.
    func ids(_ filter: KeyFilter = KeyFilter(), limit: Int = 100) throws -> [String] {
        var ids: [String] = []
        var cursor: String?
        repeat {
            let page = try store.list(filter, after: cursor, limit: limit)
            ids += page.keys.map(\.record.id)
            cursor = page.nextCursor
        } while cursor != nil
        return ids
    }

    /// Lines of the audit trail, without their times.
    func audit() throws -> [[String: String]] {
        let lines = try #require(try redis.command(["XRANGE", "gateway:audit", "-", "+"]).elements)
        return try lines.map { line in
            let fields = try #require(line.elements?.last?.fields)
            return Dictionary(uniqueKeysWithValues: fields.map { ($0.name, $0.value) })
        }
    }
}

func refusal(_ body: () throws -> Void) -> String? {
    do {
        try body()
        return nil
    } catch KeyStoreProblem.unavailable {
        return nil
    } catch let problem as KeyStoreProblem {
        return problem.text
    } catch {
        return nil
    }
}

/// The problem that a call meets.
func problem(_ body: () throws -> Void) -> KeyStoreProblem? {
    do {
        try body()
        return nil
    } catch {
        return error as? KeyStoreProblem
    }
}
