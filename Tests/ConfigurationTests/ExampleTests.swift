import Configuration
import Testing

/// The example is the manual: it loads, and what it calls a default is one.
@Suite("The example configuration")
struct ExampleTests {
    static func text() throws -> String {
        let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let bytes = try DiskFiles().read("/\(root)/gateway.conf.example").get()
        return try #require(String(validating: bytes, as: UTF8.self))
    }

    /// What is left when every value that has a default goes.
    static let least = """
        listen:
          https:
            address: "0.0.0.0:8443"
            certificates:
              - { chain: /etc/gateway/tls/fullchain.pem, private_key: /etc/gateway/tls/privkey.pem }
          plaintext: { address: "0.0.0.0:8080" }
        admin: { address: "127.0.0.1:9901" }
        tiers: { standard: { limits: [100/minute] } }
        upstreams:
          taskflow: { endpoints: ["http://127.0.0.1:3000"], health: { path: /healthz } }
        routes:
          - { path: /api/**, upstream: taskflow }
        """

    @Test("it loads")
    func loads() throws {
        let configuration = try LoaderTests.load(Self.text())
        #expect(configuration.tiers.map(\.name) == ["standard", "pro", "enterprise"])
        #expect(configuration.keys.staticKeys.count == 1)
    }

    @Test("its comments load too: every key in them is one that the loader knows")
    func commentsLoad() throws {
        // "# key: value" under a section is an example of that key; prose has no lower-case name and colon in
        // front.
        let lines = try Self.text().split(separator: "\n", omittingEmptySubsequences: false).map { line in
            guard line.contains(/^ *# [a-z_]+: [^ ]+$/), let mark = line.firstRange(of: "# ") else {
                return String(line)
            }
            return String(line[..<mark.lowerBound] + line[mark.upperBound...])
        }
        let text = lines.joined(separator: "\n").replacing("strip_prefix: /api", with: "strip_prefix: /api/")
        #expect(LoaderTests.problems(text) == [])
        let configuration = try LoaderTests.load(text)
        #expect(configuration.listen.clientCAPath != nil && configuration.store.caPath != nil)
        #expect(configuration.keys.pepper != nil && configuration.upstreams[0].caPath != nil)
        #expect(configuration.routes[1].host != nil && configuration.routes[1].stripPrefix != nil)
    }

    @Test("its defaults are the loader's")
    func defaults() throws {
        let full = try LoaderTests.load(Self.text())
        let least = try LoaderTests.load(Self.least)
        func same<Part>(_ part: (GatewayConfiguration) -> Part) {
            #expect("\(part(full))" == "\(part(least))")
        }
        same(\.listen)
        same(\.store)
        same(\.limits)
        same(\.timeouts)
        same(\.accessLog)
        same(\.log)
        same(\.workers)
        same(\.trustedProxies)
        same(\.legacyRateLimitHeaders)
        same(\.failedAuthenticationsPerMinute)
        same(\.upstreams)
        same { ($0.keys.prefixes, $0.keys.cacheEntries, $0.keys.exposedKeys) }
        same { [$0.keys.ttlSeconds, $0.keys.unknownTTLSeconds, $0.keys.staleForSeconds] }
        #expect(full.routes[1].cost == least.routes[0].cost)
        #expect(full.routes[1].forwardAuthorization == least.routes[0].forwardAuthorization)
    }

    @Test("every key is in it")
    func complete() throws {
        let text = try Self.text()
        for key in Set(ConfigurationReference.sections.flatMap { $0.keys.map(\.name) }) {
            let stands = text.contains(try Regex("(^|[^a-z_])\(key)($|[^a-z_])").anchorsMatchLineEndings())
            #expect(stands, "\(key)")
        }
    }

    /// The sample of the product's description, with a digest where it has a placeholder.
    @Test("the sample of the documentation loads")
    func sample() throws {
        let digest = String(repeating: "ab", count: 32)
        let text = Self.documented.replacing("<64 hex digits>", with: digest)
        let configuration = try LoaderTests.load(text)
        #expect(configuration.admin?.tokenFile == "/etc/gateway/admin-token")
        #expect(configuration.keys.staticKeys.count == 1)
        #expect(configuration.routes.map(\.isPublic) == [false, false, true])
        #expect(configuration.upstreams[0].health?.unhealthyThreshold == 3)
    }

    static let documented = """
        listen:
          https:
            address: "0.0.0.0:8443"
            certificates:
              - { chain: /etc/gateway/tls/fullchain.pem, private_key: /etc/gateway/tls/privkey.pem }
            minimum_version: "1.2"
          plaintext:                       # optional: a port that only ever refuses
            address: "0.0.0.0:8080"
            exposed_keys: report           # report | revoke
        admin:
          address: "127.0.0.1:9901"
          token_file: /etc/gateway/admin-token
        store:
          url: "redis://127.0.0.1:6379/0"  # [user:password@]; or rediss://host:port/db
          ca: /etc/gateway/redis-ca.pem    # optional: trust for rediss:// instead of the system's
          prefix: "gateway:"
          timeout: 250ms
          on_outage: local                 # local | closed | open
        keys:
          prefixes: [sk_live_]
          cache: { entries: 100000, ttl: 5m, unknown_ttl: 30s, stale_for: 10m }
          static:                          # optional: keys declared here, by digest
            - { sha256: "<64 hex digits>", id: key_ci, account: acme, tier: pro, scopes: ["projects:*"] }
        tiers:
          standard:   { limits: [100/minute] }
          pro:        { limits: [1000/minute] }
          enterprise: { limits: [10000/minute] }
        upstreams:
          taskflow:
            endpoints: ["http://127.0.0.1:3000"]
            balance: least_outstanding
            health: { path: /healthz, interval: 5s }
            connect_timeout: 2s
            response_timeout: 30s
            retries: 1
        routes:
          - { path: /api/projects, methods: [GET], scopes: ["projects:read"], upstream: taskflow }
          - { path: /api/**, upstream: taskflow }
          - { path: /status, access: public, upstream: taskflow }
        limits: { head: 32KiB, fields: 100, target: 8KiB, body: 10MiB, connections: 65536 }
        timeouts:
          { handshake: 10s, head: 10s, body: 30s, body_rate: 256B, idle: 60s, drain_delay: 5s, drain: 30s }
        access_log: { path: stdout, format: json }
        workers: auto                      # one per core
        """
}
