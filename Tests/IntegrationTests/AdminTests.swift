import Foundation
import Testing

/// The admin API by hand: who gets in, what is refused and how, and that a store that hangs holds up nobody
/// else.
@Suite("Admin API", .serialized)
struct AdminTests {
    /// What every test here needs.
    struct World {
        let redis: RedisServer
        let upstream: Upstream
        let gateway: Gateway

        init(_ change: (inout Setup) -> Void = { _ in }) throws {
            redis = try RedisServer()
            upstream = try Upstream()
            gateway = try Gateway(try Setup(upstream).managed(by: redis).with(change))
        }
    }

    // MARK: Who gets in

    @Test("without a token nobody gets in, and says so")
    func closed() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        for path in ["/v1/keys", "/v1/status", "/session"] {
            let response = try gateway.manage("GET", path)
            #expect(response.status == 403 && response.errorCode == "ADMIN_DISABLED", "\(path)")
        }
        #expect(try gateway.manage("GET", "/livez", token: nil).status == 200)
        #expect(try gateway.manage("GET", "/openapi.json", token: nil).status == 200)
    }

    @Test("clients that hardly read their answers do not shut probes out")
    func slowReaders() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let request = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        var slow: [TCPConnection] = []
        // Twice as many as the listener has places for.
        for number in 0..<256 {
            let client = try TCPConnection(port: gateway.adminPort, receiveBytes: 4_096)
            try client.stream.write(Array(String(repeating: request, count: 40).utf8))
            slow.append(client)
            if number >= 127 { _ = try client.stream.read(within: 10) }
            if number % 32 == 31 { #expect(try gateway.admin("/livez").status == 200) }
        }
    }

    @Test("a wrong token is refused, and guessing is slowed down without shutting out the right one")
    func wrongToken() throws {
        let world = try World()
        let none = try world.gateway.manage("GET", "/v1/keys", token: nil)
        #expect(none.status == 401 && none["WWW-Authenticate"]?.hasPrefix("Bearer") == true)
        var statuses: [Int] = []
        for number in 0..<12 {
            statuses.append(try world.gateway.manage("GET", "/v1/keys", token: "guess-\(number)").status)
        }
        #expect(statuses == Array(repeating: 401, count: 10) + [429, 429])
        try Deadline(seconds: 5).wait("a line in the log") {
            world.gateway.log.contains("admin: a wrong token from 127.0.0.1")
        }
        #expect(!world.gateway.log.contains("guess"))
        let limited = try world.gateway.manage("GET", "/v1/keys", token: "guess")
        #expect(Int(limited["Retry-After"] ?? "") ?? 0 > 0)
        #expect(try world.gateway.manage("GET", "/v1/keys").status == 200)
        // Signing in is refused outright from there, also with the right token.
        let body = "{\"token\":\"\(AdminTokens.write)\"}"
        _ = try world.gateway.manage("POST", "/session", token: nil, json: "{\"token\":\"guess\"}")
        #expect(try world.gateway.manage("POST", "/session", token: nil, json: body).status == 429)
    }

    @Test("the reading token reads and changes nothing")
    func roles() throws {
        let world = try World()
        let read = AdminTokens.read
        #expect(try world.gateway.manage("GET", "/v1/keys", token: read).status == 200)
        #expect(try world.gateway.manage("GET", "/v1/audit", token: read).status == 200)
        for (method, path) in [("POST", "/v1/keys"), ("PATCH", "/v1/keys/x"), ("POST", "/v1/keys/x/revoke")] {
            let response = try world.gateway.manage(method, path, token: read, json: "{\"tier\":\"pro\"}")
            #expect(response.status == 403 && response.errorCode == "FORBIDDEN", "\(method) \(path)")
        }
    }

    @Test("a reload upon request takes other tokens along, and one that is not good changes nothing")
    func reload() throws {
        let world = try World()
        #expect(try world.gateway.manage("POST", "/v1/reload").status == 200)
        #expect(try world.gateway.manage("POST", "/v1/reload", token: AdminTokens.read).status == 403)
        try world.gateway.rewriteConfiguration { $0.replacingOccurrences(of: "pro:", with: "prof: ]") }
        let refused = try world.gateway.manage("POST", "/v1/reload")
        #expect(refused.status == 422 && refused.errorCode == "CONFIGURATION_REFUSED")
        #expect(refused.text.contains("gateway.conf:"))
        let folder = try TemporaryFolder()
        let other = try folder.write("token", "f3a9b1c7d5e24680-other\n")
        try world.gateway.rewriteConfiguration {
            $0.replacingOccurrences(of: "prof: ]", with: "pro:").components(separatedBy: "\n")
                .map { $0.hasPrefix("  token_file:") ? "  token_file: \"\(other)\"" : $0 }
                .joined(separator: "\n")
        }
        #expect(try world.gateway.manage("POST", "/v1/reload").status == 200)
        #expect(try world.gateway.manage("GET", "/v1/keys").status == 401)
        #expect(try world.gateway.manage("GET", "/v1/keys", token: "f3a9b1c7d5e24680-other").status == 200)
    }

    @Test("another host's name leads nowhere")
    func rebinding() throws {
        let world = try World { $0.admin += "hosts: [gateway.internal]\n" }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost:x", ""] {
            #expect(try world.gateway.manage("GET", "/v1/keys", host: host).status >= 400, "\(host)")
            #expect(try world.gateway.manage("GET", "/", host: host).status >= 400, "\(host)")
        }
        for host in ["localhost:9901", "127.0.0.1", "[::1]:80", "gateway.internal", "Gateway.Internal:9901"] {
            #expect(try world.gateway.manage("GET", "/v1/keys", host: host).status == 200, "\(host)")
        }
    }

    @Test("a session's changes need its secret, and another site's page cannot use it")
    func crossSite() throws {
        let world = try World()
        let token = "{\"token\":\"\(AdminTokens.write)\"}"
        let away = try world.gateway.manage(
            "POST", "/session", token: nil, fields: "Origin: http://evil.example\r\n", json: token)
        #expect(away.status == 403)
        let signedIn = try world.gateway.manage("POST", "/session", token: nil, json: token)
        #expect(signedIn.status == 200)
        let setCookie = try #require(signedIn["Set-Cookie"])
        for part in ["HttpOnly", "SameSite=Strict", "Path=/"] { #expect(setCookie.contains(part)) }
        let cookie = "Cookie: \(setCookie.prefix { $0 != ";" })\r\n"
        let csrf = try #require(try signedIn.object()["csrf_token"] as? String)
        func create(_ fields: String) throws -> Int {
            try world.gateway.manage(
                "POST", "/v1/keys", token: nil, fields: cookie + fields, json: "{\"tier\":\"pro\"}"
            ).status
        }
        #expect(try world.gateway.manage("GET", "/v1/keys", token: nil, fields: cookie).status == 200)
        #expect(try create("") == 403)
        #expect(try create("X-CSRF-Token: \(csrf.reversed().map(String.init).joined())\r\n") == 403)
        #expect(try create("X-CSRF-Token: \(csrf)\r\nOrigin: http://evil.example\r\n") == 403)
        #expect(try create("X-CSRF-Token: \(csrf)\r\nSec-Fetch-Site: cross-site\r\n") == 403)
        #expect(try create("X-CSRF-Token: \(csrf)\r\nOrigin: http://localhost\r\n") == 201)
        let out = try world.gateway.manage(
            "DELETE", "/session", token: nil, fields: cookie + "X-CSRF-Token: \(csrf)\r\n")
        #expect(out.status == 204)
        #expect(try world.gateway.manage("GET", "/v1/keys", token: nil, fields: cookie).status == 401)
    }

    @Test("what the browser gets may run nothing but itself")
    func policy() throws {
        let world = try World()
        let page = try world.gateway.manage("GET", "/", token: nil)
        let policy = page["Content-Security-Policy"] ?? ""
        #expect(policy.contains("default-src 'none'") && !policy.contains("unsafe"))
        #expect(page["X-Content-Type-Options"] == "nosniff" && page["X-Frame-Options"] == "DENY")
        #expect(
            !page.text.contains("<style") && !page.text.contains("style=") && !page.text.contains("onclick"))
        // Every file that the page and its scripts name is there, and none stands elsewhere.
        var wanted: Set<String> = ["/"]
        var seen: Set<String> = []
        while let path = wanted.subtracting(seen).first {
            seen.insert(path)
            let file = try world.gateway.manage("GET", path, token: nil)
            #expect(file.status == 200, "\(path)")
            #expect(!file.text.contains("https://cdn") && !file.text.contains("innerHTML"), "\(path)")
            for match in file.text.matches(of: /from "\.\/([a-z]+\.js)"/) {
                wanted.insert("/assets/\(match.1)")
            }
            for match in file.text.matches(of: /(?:src|href)="(\/[^"]*)"/) { wanted.insert(String(match.1)) }
        }
        #expect(seen.count > 10)
    }

    // MARK: What is refused, and how

    @Test(
        "a request that cannot be is refused with the right status and a word about the field",
        arguments: [
            ("GET", "/v1/nothing", "", nil, 404, "NOT_FOUND", ""),
            ("DELETE", "/v1/keys", "", nil, 405, "METHOD_NOT_ALLOWED", ""),
            ("GET", "/v1/keys/x/revoke", "", nil, 405, "METHOD_NOT_ALLOWED", ""),
            ("GET", "/v1/keys?acount=x", "", nil, 400, "BAD_REQUEST", "acount"),
            ("GET", "/v1/keys?limit=0", "", nil, 400, "BAD_REQUEST", "limit"),
            ("GET", "/v1/keys?limit=1001", "", nil, 400, "BAD_REQUEST", "limit"),
            ("GET", "/v1/keys?cursor=nonsense", "", nil, 400, "BAD_REQUEST", "cursor"),
            ("GET", "/v1/audit?cursor=nonsense", "", nil, 400, "BAD_REQUEST", "cursor"),
            ("GET", "/v1/audit?cursor=0-0", "", nil, 400, "BAD_REQUEST", "cursor"),
            ("GET", "/v1/keys?status=asleep", "", nil, 400, "BAD_REQUEST", "status"),
            ("GET", "/v1/keys/%zz", "", nil, 400, "BAD_REQUEST", ""),
            ("GET", "/v1/keys/key_0123456789abcdef", "", nil, 404, "NOT_FOUND", ""),
            ("GET", "/v1/accounts/nobody/limits", "", nil, 404, "NOT_FOUND", "nobody"),
            ("POST", "/v1/keys", "", "{", 400, "BAD_REQUEST", "JSON"),
            ("POST", "/v1/keys", "", "[]", 400, "BAD_REQUEST", "object"),
            ("POST", "/v1/keys", "", "{\"tier\":\"pro\",\"tier\":\"pro\"}", 400, "BAD_REQUEST", "twice"),
            ("POST", "/v1/keys", "", "{}", 422, "INVALID_FIELD", "tier"),
            ("POST", "/v1/keys", "", "{\"tier\":\"profesional\"}", 422, "INVALID_FIELD", "tier"),
            ("POST", "/v1/keys", "", "{\"tier\":7}", 422, "INVALID_FIELD", "tier"),
            (
                "POST", "/v1/keys", "", "{\"tier\":\"pro\",\"scopes\":[\"a b\"]}", 422, "INVALID_FIELD",
                "scopes"
            ),
            ("POST", "/v1/keys", "", "{\"tier\":\"pro\",\"scopes\":\"a\"}", 422, "INVALID_FIELD", "scopes"),
            (
                "POST", "/v1/keys", "", "{\"tier\":\"pro\",\"expires_at\":5}", 422, "INVALID_FIELD",
                "expires_at"
            ),
            (
                "POST", "/v1/keys", "", "{\"tier\":\"pro\",\"expires_at\":\"x\"}", 422, "INVALID_FIELD",
                "expires_at"
            ),
            (
                "POST", "/v1/keys", "", "{\"tier\":\"pro\",\"limits\":\"many\"}", 422, "INVALID_FIELD",
                "limits"
            ),
            (
                "POST", "/v1/keys", "", "{\"tier\":\"pro\",\"account\":\"{x}\"}", 422, "INVALID_FIELD",
                "account"
            ),
            ("POST", "/v1/keys", "", "{\"tier\":\"pro\",\"colour\":\"red\"}", 422, "INVALID_FIELD", "colour"),
            ("PATCH", "/v1/keys/x", "", "{\"tier\":\"pro\"}", 428, "PRECONDITION_REQUIRED", "If-Match"),
            ("POST", "/v1/keys/x/rotate", "", "{}", 422, "INVALID_FIELD", "overlap_seconds"),
            ("POST", "/v1/keys/key_00/revoke", "", "{}", 404, "NOT_FOUND", ""),
        ] as [(String, String, String, String?, Int, String, String)])
    func refused(
        _ method: String, _ path: String, _ fields: String, _ json: String?, _ status: Int, _ code: String,
        _ word: String
    ) throws {
        let response = try Self.refusals.get().gateway.manage(method, path, fields: fields, json: json)
        #expect(response.status == status, "\(response.text)")
        #expect(response.errorCode == code, "\(response.text)")
        #expect(word.isEmpty || response.text.contains(word))
        if status == 405 { #expect(response["Allow"]?.isEmpty == false) }
    }

    private static let refusals = Result { try World() }

    @Test("a method that a resource does not take is refused, and those that it takes are named")
    func methods() throws {
        let world = try Self.refusals.get()
        let taken: [(path: String, methods: Set<String>)] = [
            ("/v1/keys", ["GET", "HEAD", "POST"]), ("/v1/keys/x", ["GET", "HEAD", "PATCH"]),
            ("/v1/keys/x/revoke", ["POST"]), ("/v1/keys/x/rotate", ["POST"]), ("/v1/keys/x/enable", ["POST"]),
            ("/v1/keys/x/disable", ["POST"]), ("/v1/accounts/x/limits", ["GET", "HEAD"]),
            ("/v1/audit", ["GET", "HEAD"]), ("/v1/status", ["GET", "HEAD"]), ("/v1/reload", ["POST"]),
            ("/", ["GET", "HEAD"]),
            ("/openapi.json", ["GET", "HEAD"]), ("/metrics", ["GET", "HEAD"]),
            ("/session", ["GET", "HEAD", "POST", "DELETE"]),
        ]
        for (path, methods) in taken {
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"] {
                let response = try world.gateway.manage(method, path)
                #expect((response.status == 405) == !methods.contains(method), "\(method) \(path)")
                guard response.status == 405 else { continue }
                let named = response["Allow"]?.split(separator: ",").map { $0.filter { $0 != " " } }
                #expect(Set(named ?? []) == methods, "\(method) \(path)")
            }
        }
    }

    @Test("a body that is too large or of another type is refused before it is looked at")
    func bodies() throws {
        let world = try World()
        let large = "{\"tier\":\"pro\",\"name\":\"\(String(repeating: "x", count: 70_000))\"}"
        #expect(try world.gateway.manage("POST", "/v1/keys", json: large).status == 413)
        let other = try world.gateway.manage("POST", "/v1/keys", json: "{}", type: "text/plain")
        #expect(other.status == 415)
    }

    // MARK: Keys

    @Test("a key lives by way of the API: made, used, changed, rotated, disabled, revoked")
    func life() throws {
        let world = try World()
        let made = try world.gateway.generate(
            "{\"tier\":\"pro\",\"account\":\"acme\",\"name\":\"ci\",\"scopes\":[\"projects:read\"]}")
        let id = try #require(made["id"] as? String)
        let key = TestKey(secret: try #require(made["key"] as? String), id: "", account: "", tier: "")
        #expect(try world.gateway.call(key: key).status == 200)
        let read = try world.gateway.manage("GET", "/v1/keys/\(id)")
        #expect(read.status == 200 && !read.text.contains(key.secret))
        let etag = try #require(read["ETag"])
        // Changed while a form was open.
        let change = "{\"name\":\"build\"}"
        let first = try world.gateway.manage(
            "PATCH", "/v1/keys/\(id)", fields: "If-Match: \(etag)\r\n", json: change)
        #expect(first.status == 200 && first["ETag"] != etag)
        let late = try world.gateway.manage(
            "PATCH", "/v1/keys/\(id)", fields: "If-Match: \(etag)\r\n", json: "{\"tier\":\"standard\"}")
        #expect(late.status == 412 && late.errorCode == "PRECONDITION_FAILED")
        // Two of a name in an account.
        let double = try world.gateway.manage(
            "POST", "/v1/keys", json: "{\"tier\":\"pro\",\"account\":\"acme\",\"name\":\"build\"}")
        #expect(double.status == 409 && double.text.contains("name"))
        let rotated = try world.gateway.manage(
            "POST", "/v1/keys/\(id)/rotate", json: "{\"overlap_seconds\":3600}")
        #expect(rotated.status == 201)
        let new = try #require(try rotated.object()["new"] as? [String: Any])
        let newKey = TestKey(secret: try #require(new["key"] as? String), id: "", account: "", tier: "")
        #expect(try world.gateway.call(key: newKey).status == 200)
        #expect(try world.gateway.call(key: key).status == 200)
        let newID = try #require(new["id"] as? String)
        for (action, status) in [("disable", 401), ("enable", 200), ("revoke", 401)] {
            let done = try world.gateway.manage(
                "POST", "/v1/keys/\(newID)/\(action)", json: "{\"reason\":\"test\"}")
            #expect(done.status == 200, "\(action): \(done.text)")
            try Deadline(seconds: 3).wait("\(action)") {
                try world.gateway.call(key: newKey).status == status
            }
        }
        #expect(try world.gateway.manage("POST", "/v1/keys/\(newID)/enable", json: "{}").status == 409)
        let trail = try world.gateway.manage("GET", "/v1/audit?key=\(newID)")
        for word in ["revoke", "disable", "enable", "admin-api", "127.0.0.1", "test"] {
            #expect(trail.text.contains(word), "\(word) in \(trail.text)")
        }
        let everything =
            trail.text + world.gateway.log + world.gateway.accessLog.joined()
            + (try world.gateway.admin("/metrics").text)
            + (try world.redis.command("XRANGE", "gateway:audit", "-", "+"))
        for secret in [key.secret, newKey.secret] { #expect(!everything.contains(secret)) }
    }

    @Test("a key that lives nearly for ever can be replaced, and its successor be used")
    func farExpiry() throws {
        let world = try World()
        let made = try world.gateway.generate("{\"tier\":\"pro\",\"expires_at\":999999999999}")
        let id = try #require(made["id"] as? String)
        let rotated = try world.gateway.manage(
            "POST", "/v1/keys/\(id)/rotate", json: "{\"overlap_seconds\":60}")
        let new = try #require(try rotated.object()["new"] as? [String: Any])
        let key = TestKey(secret: try #require(new["key"] as? String), id: "", account: "", tier: "")
        #expect(try world.gateway.call(key: key).status == 200)
    }

    @Test("the same creation sent twice makes one key and shows it once")
    func idempotency() throws {
        let world = try World()
        let json = "{\"tier\":\"pro\",\"name\":\"once\",\"account\":\"acme\"}"
        let fields = "Idempotency-Key: order-66\r\n"
        let first = try world.gateway.manage("POST", "/v1/keys", fields: fields, json: json)
        let second = try world.gateway.manage("POST", "/v1/keys", fields: fields, json: json)
        #expect(first.status == 201 && second.status == 200)
        #expect(try first.object()["id"] as? String == second.object()["id"] as? String)
        #expect(try second.object()["key"] == nil && second["Idempotent-Replayed"] == "true")
        #expect(try second.object()["replayed"] as? Bool == true && first.object()["replayed"] == nil)
        let other = try world.gateway.manage(
            "POST", "/v1/keys", fields: fields, json: "{\"tier\":\"standard\"}")
        #expect(other.status == 409 || other.status == 422)
        let list = try world.gateway.manage("GET", "/v1/keys").object()["keys"] as? [[String: Any]]
        #expect(list?.count == 1)
    }

    @Test("pages are complete while keys are being added")
    func pages() throws {
        let world = try World()
        var expected: Set<String> = []
        for number in 0..<30 {
            expected.insert(
                try #require(
                    try world.gateway.generate("{\"tier\":\"pro\",\"name\":\"n\(number)\"}")["id"] as? String)
            )
        }
        var found: [String] = []
        var cursor: String?
        repeat {
            let page = try world.gateway.manage(
                "GET", "/v1/keys?limit=7" + (cursor.map { "&cursor=\($0)" } ?? "")
            ).object()
            found += (page["keys"] as? [[String: Any]] ?? []).compactMap { $0["id"] as? String }
            cursor = page["next_cursor"] as? String
            _ = try world.gateway.generate("{\"tier\":\"standard\"}")
        } while cursor != nil
        #expect(expected.isSubset(of: found))
        #expect(Set(found).count == found.count)
    }

    @Test("an account's window says what counts now")
    func window() throws {
        let world = try World()
        let made = try world.gateway.generate("{\"tier\":\"pro\",\"account\":\"acme\"}")
        let key = TestKey(secret: try #require(made["key"] as? String), id: "", account: "", tier: "")
        for _ in 0..<3 { #expect(try world.gateway.call(key: key).status == 200) }
        try Deadline(seconds: 5).wait("the window") {
            let answer = try world.gateway.manage("GET", "/v1/accounts/acme/limits").object()
            let policies = answer["policies"] as? [[String: Any]]
            let window = (policies?.first?["windows"] as? [[String: Any]])?.first
            let course = (window?["course"] as? [Int])?.reduce(0, +)
            return window?["used"] as? Int == 3 && window?["remaining"] as? Int == 997 && course == 3
        }
    }

    @Test("the status counts calls and says why others were refused")
    func status() throws {
        let world = try World()
        let made = try world.gateway.generate("{\"tier\":\"pro\"}")
        let key = TestKey(secret: try #require(made["key"] as? String), id: "", account: "", tier: "")
        #expect(try world.gateway.call(key: key).status == 200)
        #expect(try world.gateway.call(key: nil).status == 401)
        let status = try world.gateway.manage("GET", "/v1/status", token: AdminTokens.read).object()
        let requests = status["requests"] as? [String: Int]
        #expect(requests?["total"] == 2 && requests?["2xx"] == 1 && requests?["4xx"] == 1)
        #expect(status["refusals"] as? [String: Int] == ["key_missing": 1])
        #expect((status["store"] as? [String: Any])?["up"] as? Bool == true)
        #expect(status["role"] as? String == "read")
    }

    // MARK: A store that is away

    @Test("a store that hangs holds up who asks for keys, and nobody else")
    func hangingStore() throws {
        let world = try World()
        world.redis.freeze()
        let waiting = try PlainClient(port: world.gateway.adminPort)
        try waiting.send(
            "GET /v1/keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \(AdminTokens.write)\r\n\r\n")
        let start = ContinuousClock.now
        for path in ["/livez", "/metrics", "/v1/status"] {
            #expect(try world.gateway.manage("GET", path).status == 200, "\(path)")
        }
        #expect(ContinuousClock.now - start < .seconds(1.5))
        let answer = try waiting.response(within: 15)
        #expect(answer.status == 503 && answer["Retry-After"] == "1")
        #expect(answer.errorCode == "SERVICE_UNAVAILABLE")
        // More than wait at once are turned away at once.
        var clients: [PlainClient] = []
        for _ in 0..<40 {
            let client = try PlainClient(port: world.gateway.adminPort)
            try client.send(
                "GET /v1/audit HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                    + "Authorization: Bearer \(AdminTokens.write)\r\n\r\n")
            clients.append(client)
        }
        #expect(try clients[39].response(within: 1.5).status == 503)
        world.redis.thaw()
        for client in clients.dropLast() {
            #expect([200, 503].contains(try client.response(within: 60).status))
        }
        #expect(try world.gateway.manage("GET", "/v1/keys").status == 200)
    }
}
