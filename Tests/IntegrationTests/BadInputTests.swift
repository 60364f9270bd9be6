import Testing

/// Requests that must be refused, and nothing of them reach the upstream.
@Suite("Bad input from callers", .serialized)
struct BadInputTests {
    private static let authorization = "Authorization: Bearer \(TestKey.enterprise.secret)\r\n"

    @Test(
        "ambiguous requests are refused and the connection closes",
        arguments: [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n", "Content-Length: 5,6\r\n", "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n", "X-A: 1\r\n folded\r\n", "X-A : 1\r\n", "X-A: 1\n",
            "X-A: a\u{0}b\r\n",
            "X-A: a\rb\r\n", "Host: other\r\n", ": empty\r\n", "X A: 1\r\n", "no colon\r\n",
        ])
    func ambiguous(_ fields: String) throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send("POST /api/x HTTP/1.1\r\nHost: localhost\r\n\(Self.authorization)\(fields)\r\nhello")
        let response = try client.response()
        #expect(response.status == 400)
        #expect(response.text.hasPrefix("{\"error\":{\"code\":\"BAD_REQUEST\",\"message\":\""))
        #expect(response["Connection"] == "close")
        #expect(client.isClosedByGateway())
        #expect(upstream.requests.isEmpty)
    }

    @Test(
        "a request line that is not one is refused",
        arguments: [
            ("GET /api/x HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
            ("GET  /api/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /api/x HTTP/2.0\r\nHost: a\r\n\r\n", 505), ("GET /api/x\r\n\r\n", 400),
            ("GET /api/x HTTP/1.1\r\n\r\n", 400), ("G\u{7f}T /api/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://other/api/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://u:p@a/api/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
            ("POST /api/x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ])
    func requestLine(_ text: String, _ status: Int) throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let client = try gateway.connect()
        try client.send(text)
        #expect(try client.response().status == status)
        #expect(client.isClosedByGateway())
    }

    @Test("a bad chunk cuts the call and the upstream's connection")
    func badChunk() throws {
        let upstream = try Upstream { exchange in
            exchange.recordHead()
            _ = try exchange.receiveRest()
        }
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send(
            Gateway.request(method: "POST", fields: "Transfer-Encoding: chunked\r\n") + "3\r\nabc")
        _ = try upstream.latest()
        try client.send("X\r\n")
        #expect(try client.response(to: "POST").status == 400)
        #expect(client.isClosedByGateway())
        upstream.play(Upstream.answer("fresh"))
        #expect(try gateway.call().text == "fresh")
        #expect(upstream.connectionCount == 2)
    }

    @Test(
        "a bad chunk that comes with its head costs no call and no permit",
        arguments: ["3\r\nabcX\r\n", "-1\r\n", "3\r\nabc\r\n0\r\nX : y\r\n\r\n"])
    func badChunkAtOnce(_ body: String) throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send(Gateway.request(method: "POST", fields: "Transfer-Encoding: chunked\r\n") + body)
        let refusal = try client.response(to: "POST")
        #expect(refusal.status == 400)
        #expect(refusal["RateLimit"] == nil)
        #expect(client.isClosedByGateway())
        #expect(try gateway.call().status == 200)
        #expect(upstream.requests.count == 1)
    }

    @Test(
        "a path parameter does not lead past a route",
        arguments: [
            ("/api/admin;x", 400), ("/api/admin;x=1?a=b", 400), ("/api;v=1/admin", 400),
            ("/api/other;x", 200),
            ("/api/a;b/c;d", 200), ("/api/admin", 200), ("/api/admin%3Bx", 200), ("/api/x?a;b", 200),
            ("/api/;/admin", 400), ("/api/;x/admin", 400), ("/;x/api/admin", 400), ("/;/;/api/;/admin", 400),
            ("/api/;/other;x", 200), ("/api/.;x/admin", 400), ("/x/..;/api/admin", 400),
            ("/x/..%3Bx/api/admin", 400), ("/api/.%3b/admin", 400), ("/api/x.%3Bx/admin", 200),
        ])
    func pathParameters(_ target: String, _ status: Int) throws {
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.routes = [
                    "{ path: /api/admin, scopes: [\"admin:write\"], upstream: main }",
                    "{ path: /api/**, upstream: main }",
                ]
            })
        #expect(try gateway.call(target).status == status)
        // To those without a key all is alike: there is nothing to learn of routes.
        #expect(try gateway.call(target, key: nil).status == (target.contains("/.") ? status : 401))
    }

    @Test(
        "an escape does not lead past a route whose word has the character itself",
        arguments: [
            ("/api/projects%3Aexport", 400), ("/api/projects%3aexport?a", 400), ("/api/%40admin", 400),
            ("/api/%40admin;x", 400), ("/api/;x/%40admin", 400), ("/api/projects:export", 403),
            ("/api/@admin", 403), ("/api/projects%3Aimport", 200), ("/api/%40other", 200),
        ])
    func escapes(_ target: String, _ status: Int) throws {
        let upstream = try Upstream()
        let gateway = try Gateway(
            Setup(upstream).with {
                $0.routes = [
                    "{ path: \"/api/projects:export\", scopes: [\"admin:write\"], upstream: main }",
                    "{ path: \"/api/@admin\", scopes: [\"admin:write\"], upstream: main }",
                    "{ path: /api/**, upstream: main }",
                ]
            })
        #expect(try gateway.call(target, key: .pro).status == status)
        #expect(upstream.requests.count == (status == 200 ? 1 : 0))
    }

    @Test("heads and targets over their limits get 431 and 414")
    func tooLong() throws {
        let gateway = try Gateway(
            Setup(try Upstream()).with { $0.sections = "limits: { head: 4KiB, fields: 20, target: 1KiB }\n" })
        let long = String(repeating: "a", count: 1_100)
        #expect(try gateway.call("/api/\(long)").status == 414)
        #expect(
            try gateway.call(fields: "X-A: \(long)\r\nX-B: \(long)\r\nX-C: \(long)\r\nX-D: \(long)\r\n")
                .status == 431)
        let many = (0..<25).map { "X-\($0): 1\r\n" }.joined()
        #expect(try gateway.call(fields: many).status == 431)
    }

    @Test("a head that never ends is given up in time")
    func slowHead() throws {
        let gateway = try Gateway(
            Setup(try Upstream()).with { $0.timeouts = "drain_delay: 0s, head: 300ms, handshake: 300ms" })
        let client = try gateway.connect()
        try client.send("GET /api/x HTTP/1.1\r\nHost: lo")
        #expect(try client.response().status == 408)
        let silent = try PlainClient(port: gateway.httpsPort)
        #expect(try silent.rest(within: 5).isEmpty)
    }

    @Test("a body that stops is given up in time")
    func slowBody() throws {
        let upstream = try Upstream { exchange in
            exchange.recordHead()
            _ = try exchange.receiveRest()
        }
        let gateway = try Gateway(Setup(upstream).with { $0.timeouts = "drain_delay: 0s, body: 300ms" })
        let client = try gateway.connect()
        try client.send(Gateway.request(method: "POST", fields: "Content-Length: 10\r\n") + "abc")
        #expect(try client.response(to: "POST").status == 408)
        #expect(client.isClosedByGateway())
    }

    @Test("a body that trickles below the rate is given up, however often a byte comes")
    func tricklingBody() throws {
        let upstream = try Upstream { exchange in
            exchange.recordHead()
            _ = try exchange.receiveRest()
        }
        let gateway = try Gateway(
            Setup(upstream).with { $0.timeouts = "drain_delay: 0s, body: 1s, body_rate: 1MiB" })
        let client = try gateway.connect()
        try client.send(Gateway.request(method: "POST", fields: "Content-Length: 9999999\r\n"))
        // Each byte comes well within the timeout of a body that stops.
        try Deadline(seconds: 10).wait("the end of patience") {
            try? client.send("x")
            return try gateway.metricSum("gateway_requests_total", holding: "code=\"408\"") == 1
        }
        let response = try client.response(to: "POST")
        #expect(response.status == 408)
        #expect(client.isClosedByGateway())
    }

    @Test("connections that say nothing are closed in time, before and after the handshake")
    func silence() throws {
        let gateway = try Gateway(
            Setup(try Upstream()).with { $0.timeouts = "drain_delay: 0s, handshake: 300ms, idle: 300ms" })
        let start = ContinuousClock.now
        #expect(try PlainClient(port: gateway.httpsPort).rest(within: 5).isEmpty)
        let client = try gateway.connect()
        try client.send(Gateway.request())
        #expect(try client.response().status == 200)
        #expect(client.isClosedByGateway())
        #expect(start.duration(to: .now) < .seconds(4))
    }

    @Test("a refused body is read past, so that its connection goes on")
    func refusedBody() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send(
            Gateway.request("/api/x", key: nil, method: "POST", body: "GET /api/smuggled HTTP/1.1\r\n\r\n"))
        #expect(try client.response(to: "POST").status == 401)
        try client.send(Gateway.request("/api/next"))
        #expect(try client.response().status == 200)
        #expect(upstream.requests.map(\.target) == ["/api/next"])
    }
}
