import Testing

/// The gateway's own answers, byte for byte.
@Suite("Answers of its own", .serialized)
struct AnswerTests {
    private static func body(_ code: String, _ message: String) -> String {
        "{\"error\":{\"code\":\"\(code)\",\"message\":\"\(message)\"}}"
    }

    private static let invalidKey = body(
        "INVALID_API_KEY", "The provided API key is invalid or has been revoked.")

    private func check(_ response: Response, _ status: Int, _ body: String) {
        #expect(response.status == status)
        #expect(response.text == body)
        #expect(response["Content-Type"] == "application/json")
        #expect(response["Cache-Control"] == "no-store")
        #expect(response["X-Request-Id"]?.isEmpty == false)
    }

    @Test("a caller without a key learns nothing but that")
    func missingKey() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream))
        for target in ["/api/x", "/nowhere"] {
            let response = try gateway.call(target, key: nil)
            check(response, 401, Self.invalidKey)
            #expect(response["WWW-Authenticate"] == "Bearer realm=\"api\"")
        }
        #expect(upstream.requests.isEmpty)
    }

    @Test(
        "a credential that is no key is refused like any other",
        arguments: [
            "Bearer sk_live_unknown", "Bearer", "Basic c2tfbGl2ZV9zdGFuZGFyZA==", "Bearer sk_live_a b",
            "Bearer other_standard_abc123", "Bearer sk_live_nq5POLLIIHYsJJxTsgRaWKD10wQnAGPG1J9FeP",
        ])
    func badCredential(_ value: String) throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream))
        let response = try gateway.call(key: nil, fields: "Authorization: \(value)\r\n")
        check(response, 401, Self.invalidKey)
        #expect(response["WWW-Authenticate"] == "Bearer realm=\"api\", error=\"invalid_token\"")
        #expect(upstream.requests.isEmpty)
    }

    @Test("two Authorization fields are no credential")
    func twoCredentials() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream))
        let fields = "Authorization: Bearer \(TestKey.pro.secret)\r\n"
        #expect(try gateway.call(key: .pro, fields: fields).status == 401)
        #expect(upstream.requests.isEmpty)
    }

    @Test("a missing scope is named, and costs nothing")
    func missingScope() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(
            Setup(upstream).with {
                $0.routes = ["{ path: /api/projects, scopes: [\"projects:read\"], upstream: main }"]
            })
        let refused = try gateway.call("/api/projects", key: .standard)
        check(
            refused, 403,
            Self.body("INSUFFICIENT_PERMISSIONS", "Your API key doesn't have access to this resource."))
        let challenge = "Bearer realm=\"api\", error=\"insufficient_scope\", scope=\"projects:read\""
        #expect(refused["WWW-Authenticate"] == challenge)
        #expect(refused["RateLimit"]?.contains("r=100;") == true)
        #expect(try gateway.call("/api/projects", key: .pro).status == 200)
        #expect(try gateway.call("/api/projects", key: .enterprise).status == 200)
    }

    @Test("what is not there is told only to those with a key")
    func notFound() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        check(try gateway.call("/nowhere"), 404, Self.body("NOT_FOUND", "No such resource."))
        #expect(try gateway.call("/nowhere", key: nil).status == 401)
    }

    @Test("another method is answered with those that exist")
    func methodNotAllowed() throws {
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.routes = [
                    "{ path: /api/a, methods: [GET, POST], upstream: main }",
                    "{ path: /api/**, upstream: main }",
                ]
            })
        let response = try gateway.call("/api/a", method: "DELETE")
        #expect(response.status == 405)
        #expect(response["Allow"] == "GET, HEAD, POST")
        #expect(try gateway.call("/api/b", method: "DELETE").status == 200)
    }

    @Test("plain HTTP is refused on both ports, whoever asks", arguments: [true, false])
    func plainHTTP(_ onPlaintextPort: Bool) throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream))
        let client = try PlainClient(port: onPlaintextPort ? gateway.plaintextPort : gateway.httpsPort)
        try client.send(Gateway.request(key: .pro))
        let response = try client.response()
        check(response, 426, Self.body("HTTPS_REQUIRED", "This API is available over HTTPS only."))
        #expect(response["Upgrade"] == "TLS/1.2, HTTP/1.1")
        #expect(response["Connection"] == "Upgrade, close")
        #expect(try client.rest().isEmpty)
        #expect(upstream.requests.isEmpty)
        try Deadline(seconds: 5).wait("the exposed key's line") {
            gateway.log.contains("key_pro came in clear")
        }
        #expect(!gateway.log.contains(TestKey.pro.secret))
        #expect(try gateway.metricSum("gateway_auth_total", holding: "exposed") == 1)
    }

    @Test("a key that came in clear is revoked where that is the policy")
    func exposedKeyIsRevoked() throws {
        let redis = try RedisServer()
        let key = TestKey(secret: "sk_live_exposed", id: "", account: "", tier: "")
        try redis.store(key.secret, ["tier": "pro", "scopes": "*"])
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.store = "url: \"\(redis.url)\""
                $0.plaintext = "exposed_keys: revoke"
            })
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        #expect(try gateway.call(key: key).status == 200)
        let client = try PlainClient(port: gateway.plaintextPort)
        try client.send(Gateway.request(key: key))
        #expect(try client.response().status == 426)
        try Deadline(seconds: 5).wait("the revocation") { try gateway.call(key: key).status == 401 }
        let name = "gateway:key:\(sha256Hexadecimal(key.secret))"
        #expect(try redis.command("HGET", name, "status") == "revoked")
        #expect(!gateway.log.contains(key.secret))
    }

    @Test("bytes that are neither TLS nor HTTP end the connection")
    func neither() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let client = try PlainClient(port: gateway.httpsPort)
        try client.send("\u{1}\u{2}\u{3}\u{4}\r\n\r\n")
        #expect(try client.rest().isEmpty)
    }

    @Test("guessing is slowed down, while valid keys from the same address go on")
    func guessing() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let client = try gateway.connect()
        let guess = Gateway.request(key: nil, fields: "Authorization: Bearer sk_live_guess\r\n")
        for _ in 0..<20 {
            try client.send(guess)
            #expect(try client.response().status == 401)
        }
        try client.send(guess)
        let response = try client.response()
        #expect(response.status == 429)
        let seconds = try #require(response["Retry-After"].flatMap { Int($0) })
        #expect((1...60).contains(seconds))
        #expect(try gateway.call(key: .enterprise).status == 200)
    }

    @Test("a gRPC caller gets a gRPC status")
    func grpc() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let response = try gateway.call(key: nil, fields: "Content-Type: application/grpc\r\n")
        #expect(response.status == 200)
        #expect(response["grpc-status"] == "16")
        #expect(response["grpc-message"] == "The provided API key is invalid or has been revoked.")
    }
}
