import Testing

/// Upstreams of HTTP/1.1 behind TLS.
@Suite(
    "Secure upstreams", .serialized, .enabled(if: Clients.areInstalled, "`make test` installs the clients"))
struct SecureUpstreamTests {
    /// A gateway in front of the upstream that a program in `Tests/Clients` plays.
    private final class Scene {
        let upstream: LineProcess
        let gateway: Gateway

        init(
            _ settings: String = "", program: String = "secure.py", arguments: [String] = [],
            host: String = "localhost", trust: Certificate? = nil
        ) throws {
            let certificate = try Certificate.shared.get()
            upstream = try Clients.start(
                program, arguments + [certificate.chainPath, certificate.keyPath])
            let port = try upstream.line()
            gateway = try Gateway(
                Setup().with {
                    $0.upstreamEndpoints = ["https://\(host):\(port)"]
                    $0.upstream = "ca: \"\((trust ?? certificate).chainPath)\"\n\(settings)"
                    $0.workers = 1
                })
        }
    }

    @Test(
        "calls share a connection, also where HTTP/2 is declined",
        arguments: ["", "http2: true"], ["localhost", "127.0.0.1"])
    func shared(_ settings: String, _ host: String) throws {
        let scene = try Scene(settings, host: host)
        for _ in 0..<20 { #expect(try scene.gateway.call("/api/ok", method: "POST", body: "x").text == "ok") }
        #expect(try Int(scene.upstream.ask("")) ?? 99 <= 2)
    }

    @Test("large bodies pass whole in both directions")
    func large() throws {
        let scene = try Scene()
        let expected = (0..<400_000).map { number in
            let digits = String(number)
            return String(repeating: "0", count: 8 - digits.count) + digits
        }.joined()
        let body = String(expected.prefix(900_000))
        for _ in 0..<3 {
            #expect(try scene.gateway.call("/api/large").text == expected)
            let answer = try scene.gateway.call("/api/digest", method: "POST", body: body)
            #expect(answer.text == sha256Hexadecimal(body))
        }
        #expect(try scene.upstream.ask("") == "1")
    }

    @Test("many at once are answered, each with its own")
    func parallel() throws {
        let scene = try Scene()
        let statuses = try Curl.statuses(
            "https://localhost:\(scene.gateway.httpsPort)/api/large", key: TestKey.enterprise.secret,
            count: 40, atOnce: 20)
        #expect(statuses == Array(repeating: 200, count: 40))
    }

    @Test("an answer that ends with the connection is whole only behind a goodbye")
    func truncation() throws {
        let scene = try Scene()
        #expect(try scene.gateway.call("/api/goodbye").text == "half or whole")
        let client = try scene.gateway.connect()
        try client.send(Gateway.request("/api/silence"))
        #expect(try client.head().startLine == "HTTP/1.1 200 OK")
        // In chunks, of which the last one is missing.
        #expect(try !client.rest().suffix(5).elementsEqual("0\r\n\r\n".utf8))
    }

    @Test("an upstream that nobody vouches for gets no request, and the log says why")
    func untrusted() throws {
        let scene = try Scene(trust: try Certificate.other.get())
        #expect(try scene.gateway.call("/api/ok").status == 502)
        try Deadline(seconds: 5).wait("the log") { scene.gateway.log.contains("TLS to upstream localhost") }
        #expect(try scene.upstream.ask("") == "0")
    }

    @Test("the alert about an upstream's broken record goes to nobody else")
    func alert() throws {
        let scene = try Scene(program: "records.py", arguments: ["upstream"])
        let client = try scene.gateway.connect()
        for _ in 0..<5 {
            try client.send(Gateway.request("/api/garbage"))
            #expect(try client.response().status == 502)
            try client.send(Gateway.request("/api/ok"))
            #expect(try client.response().text == "ok")
        }
    }

    @Test("a call that meets its connection's goodbye is sent again")
    func goodbye() throws {
        let scene = try Scene(program: "records.py", arguments: ["upstream"])
        for _ in 0..<5 {
            #expect(try scene.gateway.call("/api/ok").status == 200)
            #expect(try scene.gateway.call("/api/goodbye").text == "ok")
        }
    }

    @Test("a handshake that fails is nobody else's failure")
    func strangers() throws {
        let gateway = try Gateway(Setup(try Upstream()).with { $0.workers = 1 })
        let outcome = try Clients.run(
            "records.py",
            [
                "caller", String(gateway.httpsPort), try Certificate.shared.get().chainPath,
                TestKey.enterprise.secret,
            ])
        #expect(outcome.output == "HTTP/1.1 200 OK\n", "\(outcome.error)")
    }
}
