import Foundation
import TestSupport
import Testing

/// Clients and servers that people use, through the gateway: what they think of it counts more than what a
/// test's own client thinks.
@Suite("Real clients", .serialized, .enabled(if: Clients.areInstalled, "`make test` installs the clients"))
struct RealClientTests {
    private struct ServerPorts: Decodable {
        var web: Int
        var grpc: Int
        var websocket: Int
    }

    /// A gateway in front of the three servers, which live as long as the process.
    private static func start() throws -> (Gateway, LineProcess) {
        let servers = try Clients.start("servers.py", [])
        let ports = try JSONDecoder().decode(ServerPorts.self, from: Data(try servers.line().utf8))
        let gone = try Ports.free()
        let gateway = try Gateway(
            Setup().with {
                $0.upstreamEndpoints = ["http://127.0.0.1:\(ports.web)"]
                $0.moreUpstreams = """
                      sockets: { endpoints: ["http://127.0.0.1:\(ports.websocket)"] }
                      calls: { endpoints: ["http://127.0.0.1:\(ports.grpc)"], http2: true }
                      gone: { endpoints: ["http://127.0.0.1:\(gone)"], http2: true }

                    """
                $0.routes = [
                    "{ path: /api/**, upstream: main }", "{ path: /ws/**, upstream: sockets }",
                    "{ path: /test.Echo/**, upstream: calls }",
                    "{ path: /test.Scoped/**, scopes: [\"calls:write\"], upstream: calls }",
                    "{ path: /test.Gone/**, upstream: gone }",
                ]
            })
        return (gateway, servers)
    }

    @Test("Python's clients are served", arguments: ["web", "events", "websocket", "grpc"])
    func python(_ what: String) throws {
        let (gateway, servers) = try Self.start()
        let outcome = try Clients.run(
            "clients.py",
            [
                what, String(gateway.httpsPort), try Certificate.shared.get().chainPath,
                TestKey.enterprise.secret,
            ])
        #expect(outcome.status == 0, "\(outcome.error)")
        withExtendedLifetime(servers) {}
    }

    @Test("curl is served over HTTP/1.1 and HTTP/2", arguments: ["1.1", "2"])
    func curl(_ version: String) throws {
        let (gateway, servers) = try Self.start()
        let url = "https://localhost:\(gateway.httpsPort)/api"
        let common = [
            "-sS", "--http\(version)", "--cacert", try Certificate.shared.get().chainPath, "-H",
            "Authorization: Bearer \(TestKey.enterprise.secret)", "-w", " %{http_code} %{http_version}\\n",
        ]
        let answers = try ChildProcess.run("curl", common + ["\(url)/a", "\(url)/b?c=d"])
        #expect(answers.output == "GET /api/a 200 \(version)\nGET /api/b?c=d 200 \(version)\n")
        let body = String(repeating: "x", count: 100_000)
        let echo = try ChildProcess.run("curl", common + ["-d", body, "\(url)/echo"])
        #expect(echo.output == "\(body) 200 \(version)\n")
        withExtendedLifetime(servers) {}
    }

    @Test("nghttp and h2load are served")
    func nghttp2() throws {
        let (gateway, servers) = try Self.start()
        let url = "https://localhost:\(gateway.httpsPort)/api/x"
        let key = "authorization: Bearer \(TestKey.enterprise.secret)"
        let one = try ChildProcess.run("nghttp", ["-v", "-H", key, url, "\(url)/2", "\(url)/3"])
        #expect(one.status == 0, "\(one.error)")
        #expect(one.output.components(separatedBy: ":status: 200").count == 4)
        let many = try ChildProcess.run("h2load", ["-n", "600", "-c", "4", "-m", "16", "-H", key, url])
        #expect(many.output.contains("600 succeeded, 0 failed, 0 errored"), "\(many.output)")
        #expect(many.output.contains("status codes: 600 2xx"))
        withExtendedLifetime(servers) {}
    }
}
