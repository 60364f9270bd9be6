import Configuration
import Limits
import Testing

/// Files that exist only here.
struct FakeFiles: FileAccess {
    func read(_ path: String) -> Result<[UInt8], FileProblem> {
        if path.contains("missing") { return .failure(FileProblem("the file does not exist")) }
        return switch path {
        case "/empty": .success(Array("\r\n".utf8))
        case "/binary": .success([0xFF, 0xFE])
        case _ where path.hasSuffix("admin-token"): .success(Array("0123456789abcdef\n".utf8))
        case _ where path.hasSuffix("admin-read-token"): .success(Array("fedcba9876543210\n".utf8))
        default: .success(Array("spice\n".utf8))
        }
    }
}

@Suite("Configuration")
struct LoaderTests {
    static let base = """
        listen:
          https:
            address: "0.0.0.0:8443"
            certificates:
              - { chain: /c.pem, private_key: /k.pem }
        store: { url: "memory:" }
        tiers:
          standard: { limits: [100/minute] }
          pro: { limits: [1000/minute, 50/second] }
        upstreams:
          main: { endpoints: ["http://127.0.0.1:3000"] }
        routes:
          - { path: /api/**, upstream: main }

        """

    static func load(_ text: String, _ environment: [String: String] = [:]) throws -> GatewayConfiguration {
        try ConfigurationLoader.load(
            text: text, fileName: "gateway.conf", environment: environment, files: FakeFiles(), processors: 4)
    }

    static func problems(_ text: String) -> [String] {
        do {
            _ = try load(text)
            return []
        } catch {
            return (error as? ConfigurationProblems)?.lines ?? ["\(error)"]
        }
    }

    @Test("what is left out has the documented default")
    func defaults() throws {
        let configuration = try Self.load(Self.base)
        #expect(configuration.workers == 4)
        #expect(configuration.limits.bodyBytes == 10 << 20 && configuration.limits.headBytes == 32_768)
        #expect(configuration.timeouts.drainDelay == 5_000 && configuration.timeouts.bodyRate == 256)
        #expect(configuration.keys.prefixes == ["sk_live_"] && configuration.keys.ttlSeconds == 300)
        #expect(configuration.upstreams[0].retries == 1)
        #expect(configuration.upstreams[0].responseTimeoutMilliseconds == 30_000)
        #expect(configuration.failedAuthenticationsPerMinute == 20)
        #expect(configuration.tiers[1].limits.windows.count == 2)
    }

    @Test(
        "each mistake is named with its place",
        arguments: [
            (
                "  - { path: /b, upstream: mian }",
                ":14:27: unknown upstream \"mian\" (did you mean \"main\"?)"
            ),
            ("  - { path: b, upstream: main }", ":14:13: \"b\" is not a path like /healthz"),
            (
                "  - { path: /b, upstream: main, methods: [GTE] }",
                ":14:43: unknown method \"GTE\" (did you mean \"GET\"?)"
            ),
            ("  - { path: /a/**/b, upstream: main }", ":14:13: \"**\" stands only at the end of a path"),
            (
                "  - { path: /b, upsteam: main }",
                ":14:17: unknown key \"upsteam\" (did you mean \"upstream\"?)"
            ),
            (
                "  - { path: /api/**, upstream: main }",
                ":14:5: GET /api/** is already covered by the route in line 13"
            ),
            ("wrokers: 2", ":14:1: unknown key \"wrokers\" (did you mean \"workers\"?)"),
            ("workers: 0", ":14:10: 0 is not between 1 and 256"),
            ("timeouts: { idle: 5 }", ":14:19: \"5\" is not a duration like 250ms, 5s or 10m"),
            ("limits: { body: 10MB }", ":14:17: \"10MB\" is not a size like 512B, 32KiB or 10MiB"),
            ("keys: { pepper_file: /missing }", ":14:22: /missing: the file does not exist"),
            (
                "trusted_proxies: [10.0.0.0/33]",
                ":14:19: \"10.0.0.0/33\" is not an address or a range like 10.0.0.0/8"
            ),
            (
                "admin: { address: nowhere }",
                ":14:19: \"nowhere\" is not an address like 0.0.0.0:8443 or [::]:8443"
            ),
            ("log: { level: \"${LEVEL}\" }", ":14:15: the environment variable LEVEL is not set"),
        ])
    func mistakes(_ line: String, _ expected: String) {
        #expect(Self.problems(Self.base + line + "\n").contains("gateway.conf" + expected))
    }

    @Test("all mistakes are reported at once, in order")
    func together() {
        let lines = Self.problems(Self.base + "workers: x\nlog: { level: loud }\nbogus: 1\n")
        #expect(lines.count == 3)
        #expect(lines == lines.sorted())
    }

    @Test("\"<<\" brings in what an anchor names, and what stands beside it goes before")
    func mergedNames() throws {
        let text = Self.base.replacing(
            "  - { path: /api/**, upstream: main }",
            with: """
                  - &defaults { path: /api/**, upstream: main, cost: 2, methods: [GET] }
                  - { <<: *defaults, path: /b, cost: 3 }
                  - { <<: [{ cost: 5 }, *defaults], path: /c }
                """)
        let routes = try Self.load(text).routes
        #expect(routes.map(\.path) == ["/api/**", "/b", "/c"])
        #expect(routes.map(\.cost) == [2, 3, 5])
        #expect(routes.allSatisfy { $0.methods == ["GET"] })
    }

    @Test(
        "an endpoint's host may be a name, an address or a bracketed address",
        arguments: [
            ("http://app_1.internal", EndpointTransport.tcp(host: "app_1.internal", port: 80, tls: false)),
            ("https://10.0.0.1", .tcp(host: "10.0.0.1", port: 443, tls: true)),
            ("http://[::1]:3000/", .tcp(host: "::1", port: 3_000, tls: false)),
            ("https://[fd00::1]", .tcp(host: "fd00::1", port: 443, tls: true)),
            ("unix:/run/app@1.sock", .unixSocket(path: "/run/app@1.sock")),
        ])
    func endpoints(_ text: String, _ transport: EndpointTransport) throws {
        let configuration = try Self.load(Self.base.replacing("http://127.0.0.1:3000", with: text))
        #expect(configuration.upstreams[0].endpoints.map(\.transport) == [transport])
    }

    @Test("the environment fills values in")
    func environment() throws {
        let text =
            Self.base.replacing("127.0.0.1:3000", with: "${HOST:-localhost}:${PORT}") + "workers: ${N:-3}\n"
        let configuration = try Self.load(text, ["PORT": "99", "HOST": ""])
        #expect(configuration.upstreams[0].endpoints[0].text == "http://localhost:99")
        #expect(configuration.workers == 3)
    }

    @Test(
        "a store's url is read, and its password shown nowhere",
        arguments: [
            ("redis://10.0.0.1:7000/2", StoreEndpoint.redis(host: "10.0.0.1", port: 7_000, tls: false)),
            ("rediss://user:p%40ss@r.test/0", .redis(host: "r.test", port: 6_379, tls: true)),
            ("redis+unix://:secret@/run/redis.sock", .unixSocket(path: "/run/redis.sock")),
            ("redis+unix:///run/a@b.sock", .unixSocket(path: "/run/a@b.sock")),
            ("redis://[::1]/3", .redis(host: "::1", port: 6_379, tls: false)),
            ("redis+sentinel://a,b:7/main", .sentinel(hosts: ["a:26379", "b:7"], name: "main", tls: false)),
            ("rediss+sentinel://a/main", .sentinel(hosts: ["a:26379"], name: "main", tls: true)),
            ("redis+cluster://a:1,b:2", .cluster(hosts: ["a:1", "b:2"], tls: false)),
            ("rediss+cluster://a", .cluster(hosts: ["a:6379"], tls: true)),
        ])
    func stores(_ url: String, _ endpoint: StoreEndpoint) throws {
        let configuration = try Self.load(Self.base.replacing("memory:", with: url))
        #expect(configuration.store.endpoint == endpoint)
        #expect(!"\(configuration)".contains("p@ss") && !"\(configuration)".contains("secret"))
    }

    @Test("a bad url's message does not repeat its password")
    func badURL() {
        for url in ["redis://u:hunter2@bad host:1/0", "rdis://u:hunter2@h/0", "redis://hunter2@h"] {
            let lines = Self.problems(Self.base.replacing("memory:", with: url))
            #expect(lines.count == 1 && !lines[0].contains("hunter2"))
        }
    }
}
