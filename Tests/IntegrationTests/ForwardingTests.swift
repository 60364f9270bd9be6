import Testing

/// What reaches the upstream, and what comes back.
@Suite("Forwarding", .serialized)
struct ForwardingTests {
    @Test("the upstream is told who calls by the gateway alone")
    func identity() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream))
        let forged =
            "X-Gateway-Account: root\r\nX_Gateway_Tier: enterprise\r\nx-gateway-key_id: k\r\n"
            + "X.Gateway.Account: root\r\nx~gateway~account: root\r\nX.Forwarded.For: 1.2.3.4\r\n"
            + "If.Match: \"a\"\r\nsec-ch-ua!: b\r\n"
            + "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: http\r\nForwarded: for=1.2.3.4\r\n"
            + "X-Kept: yes\r\n"
        #expect(try gateway.call(key: .pro, fields: forged).status == 200)
        let request = try upstream.latest()
        #expect(request["X-Gateway-Key-Id"] == "key_pro")
        #expect(request["X-Gateway-Account"] == "globex")
        #expect(request["X-Gateway-Tier"] == "pro")
        #expect(request["X-Gateway-Scopes"] == "projects:*")
        #expect(!request.head.text.contains("root") && !request.head.text.contains("x-gateway-key_id"))
        #expect(!request.head.text.contains("1.2.3.4"))
        #expect(request["If.Match"] == "\"a\"" && request["sec-ch-ua!"] == "b")
        #expect(!request.head.text.lowercased().contains("authorization"))
        #expect(request["X-Forwarded-For"] == "127.0.0.1")
        #expect(request["X-Forwarded-Proto"] == "https")
        #expect(request["X-Forwarded-Host"] == "localhost")
        #expect(request["Forwarded"] == nil)
        #expect(request["Via"] == "1.1 gateway")
        #expect(request["X-Kept"] == "yes")
        #expect(request["traceparent"]?.count == 55)
    }

    @Test("a trusted proxy is believed, and the trace goes on")
    func trusted() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream).with { $0.sections = "trusted_proxies: [127.0.0.0/8]\n" })
        let trace = "0af7651916cd43dd8448eb211c80319c"
        let response = try gateway.call(
            fields:
                "X-Forwarded-For: 9.9.9.9\r\nX-Request-Id: abc-1\r\n"
                + "traceparent: 00-\(trace)-b7ad6b7169203331-01\r\n"
        )
        let request = try upstream.latest()
        #expect(request["X-Forwarded-For"] == "9.9.9.9, 127.0.0.1")
        #expect(request["X-Request-Id"] == "abc-1")
        #expect(response["X-Request-Id"] == "abc-1")
        #expect(request["traceparent"]?.hasPrefix("00-\(trace)-") == true)
        #expect(request["traceparent"]?.hasSuffix("-01") == true)
        #expect(request["traceparent"]?.contains("b7ad6b7169203331") == false)
    }

    @Test("what a proxy says of another host, path or certificate passes from trusted ones only")
    func forwardingFamily() throws {
        let upstream = try Upstream()
        let names = [
            "X-Forwarded-Prefix", "X-Forwarded-Scheme", "X-Forwarded-Ssl", "X-Forwarded-Server",
            "X-Forwarded-User", "x-forwarded-uri", "X-Forwarded-Client-Cert", "X-FORWARDED-Port",
            "X-Forwarded-Client-Cert-Chain", "X-Original-URL", "X-Rewrite-URL", "X-Real-IP", "Forwarded",
        ]
        // Not the gateway's to know: who reads them is told who sets them.
        let free = ["X-Client-IP", "True-Client-IP"]
        let fields = (names + free).map { "\($0): told\r\n" }.joined()
        for isTrusted in [false, true] {
            let gateway = try Gateway(
                Setup(upstream).with {
                    $0.sections = isTrusted ? "trusted_proxies: [127.0.0.0/8]\n" : ""
                })
            #expect(try gateway.call(fields: fields).status == 200)
            let request = try upstream.latest()
            for name in names { #expect(request[name] == (isTrusted ? "told" : nil), "\(name)") }
            for name in free { #expect(request[name] == "told", "\(name)") }
        }
    }

    @Test("the gateway says protocol and host itself where Connection ends what a trusted proxy says of them")
    func nominatedForwarding() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream).with { $0.sections = "trusted_proxies: [127.0.0.0/8]\n" })
        let fields = "X-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n"
        for options in ["", "Connection: X-Forwarded-Proto, X-Forwarded-Host\r\n"] {
            #expect(try gateway.call(fields: fields + options).status == 200)
            let request = try upstream.latest()
            #expect(request["X-Forwarded-Proto"] == (options.isEmpty ? "http" : "https"))
            #expect(request["X-Forwarded-Host"] == (options.isEmpty ? "a.test" : "localhost"))
        }
    }

    @Test("fields that Connection names and hop-by-hop fields end at the gateway")
    func hopByHop() throws {
        let upstream = try Upstream(
            Upstream.answer(
                "ok", fields: "Connection: X-Back\r\nX-Back: 1\r\nKeep-Alive: timeout=5\r\nX-Ok: 1\r\n"))
        let gateway = try Gateway(Setup(upstream))
        let response = try gateway.call(
            fields: "Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nProxy-Connection: x\r\nTE: gzip\r\n")
        let text = try upstream.latest().head.text.lowercased()
        for name in ["x-secret", "proxy-connection", "te: gzip", "connection: keep-alive"] {
            #expect(!text.contains(name))
        }
        #expect(response["X-Back"] == nil && response["Keep-Alive"] == nil)
        #expect(response["X-Ok"] == "1")
    }

    @Test("paths are matched and forwarded in one form")
    func path() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(
            Setup(upstream).with {
                $0.routes = [
                    "{ path: /api/**, upstream: main }",
                    "{ path: /old/**, strip_prefix: /old, add_prefix: /new, host: inner.test, "
                        + "upstream: main }",
                ]
            })
        #expect(try gateway.call("/x/../api//%7Euser/./a?q=%2F..").status == 200)
        #expect(try upstream.latest().target == "/api/~user/a?q=%2F..")
        #expect(try gateway.call("/old/a?b").status == 200)
        #expect(try upstream.latest().target == "/new/a?b")
        #expect(try upstream.latest()["Host"] == "inner.test")
        for bad in ["/api/a%2Fb", "/api/%00", "/api/%zz", "/api/%"] {
            #expect(try gateway.call(bad).status == 400, "\(bad)")
        }
        #expect(upstream.requests.count == 2)
    }

    @Test("bodies pass in both framings, with trailers", arguments: [true, false])
    func bodies(_ isChunked: Bool) throws {
        let upstream = try Upstream { exchange in
            let request = try exchange.receiveBody()
            try exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
            for start in stride(from: 0, to: request.body.count, by: 10_000) {
                let part = request.body[start..<min(request.body.count, start + 10_000)]
                try exchange.send("\(String(part.count, radix: 16));ext=1\r\n")
                try exchange.send(Array(part) + Array("\r\n".utf8))
            }
            try exchange.send("0\r\nX-Sum: 7\r\nContent-Length: 3\r\n\r\n")
        }
        let gateway = try Gateway(Setup(upstream))
        let body = String(repeating: "0123456789abcdef", count: 12_000)
        let client = try gateway.connect()
        if isChunked {
            try client.send(
                Gateway.request(method: "POST", fields: "Transfer-Encoding: chunked\r\nTE: trailers\r\n"))
            for start in stride(from: 0, to: 12_000 * 16, by: 48_000) {
                let part = body.dropFirst(start).prefix(48_000)
                try client.send("\(String(part.count, radix: 16))\r\n\(part)\r\n")
            }
            try client.send("0\r\nX-Tail: 1\r\n\r\n")
        } else {
            try client.send(Gateway.request(method: "POST", body: body))
        }
        let response = try client.response(to: "POST")
        #expect(response.status == 200)
        #expect(response.text == body)
        #expect(response.trailers["X-Sum"] == "7")
        #expect(response.trailers["Content-Length"] == nil)
        let request = try upstream.latest()
        #expect(request.body.count == body.utf8.count)
        #expect(request.trailers["X-Tail"] == (isChunked ? "1" : nil))
        // The connection is good for another call.
        upstream.play(Upstream.answer("again"))
        try client.send(Gateway.request())
        #expect(try client.response().text == "again")
        #expect(upstream.connectionCount == 1)
    }

    @Test("pipelined requests are answered in order")
    func pipelining() throws {
        let upstream = try Upstream { exchange in
            let request = try exchange.receiveBody()
            try exchange.send(
                "HTTP/1.1 200 OK\r\nContent-Length: \(request.target.utf8.count)\r\n\r\n\(request.target)")
        }
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        let targets = (0..<50).map { $0 % 7 == 3 ? "/none/\($0)" : "/api/\($0)" }
        try client.send(targets.map { Gateway.request($0) }.joined())
        for target in targets {
            let response = try client.response()
            #expect(target.hasPrefix("/none") ? response.status == 404 : response.text == target)
        }
    }

    @Test("100-continue, interim answers, HEAD, 204 and 304 keep their shape")
    func shapes() throws {
        let upstream = try Upstream { exchange in
            switch exchange.request.method {
            case "POST":
                try exchange.send("HTTP/1.1 100 Continue\r\n\r\n")
                try exchange.receiveBody()
                try exchange.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
                try exchange.send("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok")
            case "HEAD":
                try exchange.receiveBody()
                try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
            case "DELETE":
                try exchange.receiveBody()
                try exchange.send("HTTP/1.1 204 No Content\r\n\r\n")
            default:
                try exchange.receiveBody()
                try exchange.send("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 9\r\n\r\n")
            }
        }
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send(
            Gateway.request(method: "POST", fields: "Expect: 100-continue\r\nContent-Length: 3\r\n"))
        #expect(try client.response(to: "POST", keepsInterim: true).status == 100)
        try client.send("abc")
        #expect(try client.response(to: "POST", keepsInterim: true).status == 103)
        #expect(try client.response(to: "POST").status == 201)
        try client.send(Gateway.request(method: "HEAD"))
        let head = try client.response(to: "HEAD")
        #expect(head.status == 200 && head["Content-Length"] == "5000")
        try client.send(Gateway.request(method: "DELETE"))
        #expect(try client.response().status == 204)
        try client.send(Gateway.request())
        #expect(try client.response().status == 304)
        #expect(upstream.connectionCount == 1)
    }

    @Test("an HTTP/1.0 caller gets a plain body and the end of the connection")
    func http10() throws {
        let upstream = try Upstream(
            Upstream.respond("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send(
            "GET /api/x HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer \(TestKey.pro.secret)\r\n\r\n")
        let response = try client.response()
        #expect(response.text == "abc")
        #expect(response["Transfer-Encoding"] == nil)
    }

    @Test("a body of the end of the connection is passed on in chunks")
    func untilClose() throws {
        let upstream = try Upstream(Upstream.respond("HTTP/1.1 200 OK\r\n\r\nall of it", closes: true))
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        for _ in 0..<2 {
            try client.send(Gateway.request())
            let response = try client.response()
            #expect(response.text == "all of it")
            #expect(response["Transfer-Encoding"] == "chunked")
        }
    }

    @Test("a body over the limit is refused before a byte of it is passed on")
    func tooLarge() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream).with { $0.sections = "limits: { body: 1KiB }\n" })
        let refused = try gateway.call(method: "POST", fields: "Content-Length: 1025\r\n")
        #expect(refused.status == 413)
        #expect(upstream.requests.isEmpty)
        let client = try gateway.connect()
        try client.send(Gateway.request(method: "POST", fields: "Transfer-Encoding: chunked\r\n"))
        try client.send("500\r\n\(String(repeating: "x", count: 0x500))\r\n0\r\n\r\n")
        #expect(try client.response(to: "POST").status == 413)
    }
}
