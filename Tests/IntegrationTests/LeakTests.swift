import Foundation
import Glibc
import Testing

/// The text of a key is where it was shown, once, and nowhere else.
@Suite("Keys that leave no trace", .serialized)
struct LeakTests {
    /// Everything that was said or written down, by place.
    private struct Haystack {
        var texts: [(place: String, text: String)] = []

        mutating func add(_ place: String, _ text: String) { texts.append((place, text)) }

        /// Places that hold a key, in any form in which one could be carried along.
        func places(holding secret: String) -> [String] {
            let bytes = Array(secret.utf8)
            let forms = [
                String(secret.dropFirst(8)), Data(bytes).base64EncodedString(),
                bytes.map { String($0, radix: 16) }.joined(), String(secret.reversed()),
            ]
            return texts.filter { item in forms.contains { item.text.contains($0) } }.map(\.place)
        }
    }

    /// A gateway with everything that writes something down.
    private struct Stage {
        let collector: Upstream
        let world: AdminTests.World
        var gateway: Gateway { world.gateway }
        var haystack = Haystack()

        init() throws {
            let collector = try Upstream(Upstream.answer("{}"))
            self.collector = collector
            world = try AdminTests.World {
                $0.plaintext = "exposed_keys: report"
                $0.routes = [
                    "{ path: /api/secret, scopes: [\"projects:read\"], upstream: main }",
                    "{ path: /api/**, upstream: main }",
                ]
                $0.sections = "traces: { endpoint: \"\(collector.endpoint)/v1/traces\", sample: 100% }\n"
            }
        }

        @discardableResult
        mutating func run(_ arguments: String..., input: String? = nil) throws -> ChildProcess.Outcome {
            let outcome = try ChildProcess.run(
                try Gateway.binary(), arguments + ["--config", gateway.configurationPath], input: input)
            let place = "output of \(arguments.prefix(2).joined(separator: " "))"
            haystack.add(place, outcome.output + outcome.error)
            return outcome
        }

        @discardableResult
        mutating func manage(
            _ method: String, _ path: String, fields: String = "", json: String? = nil
        ) throws -> Response {
            let response = try gateway.manage(method, path, fields: fields, json: json)
            haystack.add("answer to \(method) \(path.prefix(12))", response.text)
            return response
        }

        // MARK: Three ways to a key

        func makeByCommand() throws -> (id: String, secret: String) {
            let outcome = try ChildProcess.run(
                try Gateway.binary(),
                [
                    "keys", "create", "--tier", "pro", "--account", "acme", "--name", "command",
                    "--output", "json", "--config", gateway.configurationPath,
                ])
            let json = try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any]
            #expect(outcome.status == 0 && outcome.error.isEmpty)
            return (
                try #require(json?["id"] as? String), try #require(json?["key"] as? String)
            )
        }

        func makeByAPI() throws -> (id: String, secret: String) {
            let made = try gateway.generate("{\"tier\":\"pro\",\"account\":\"acme\",\"name\":\"api\"}")
            return (try #require(made["id"] as? String), try #require(made["key"] as? String))
        }

        mutating func makeByPage() throws -> String {
            let browser = try Browser(width: 1280, height: 860)
            try browser.signIn(gateway, AdminTokens.write)
            try browser.click("a[data-place=keys]")
            try browser.click("#generate")
            try browser.type("page", into: "dialog input[name=name]")
            try browser.click("dialog button[type=submit]")
            let secret = try browser.value("dialog input.secret")
            try browser.click("dialog footer button", holding: "Done")
            try browser.waitUntilGone("dialog")
            try browser.reload()
            _ = try browser.find("td", holding: "page")
            haystack.add("page", try browser.source())
            let stored = "return JSON.stringify([{...localStorage}, {...sessionStorage}, location.href])"
            haystack.add("what the browser stores", try browser.run(stored) as? String ?? "")
            haystack.add("the browser's log", try browser.complaints().joined())
            return secret
        }

        // MARK: What callers do with it

        mutating func use(_ secret: String) throws {
            let url = "https://localhost:\(gateway.httpsPort)"
            let wrong = String(secret.dropLast()) + (secret.hasSuffix("a") ? "b" : "a")
            for version in ["--http1.1", "--http2"] {
                #expect(try Curl.get("\(url)/api/x", key: secret, [version]).status == 200)
                #expect(try Curl.get("\(url)/api/secret", key: secret, [version]).status == 403)
                let answers = try [
                    Curl.get("\(url)/api/x", key: wrong, [version]),
                    Curl.get("\(url)/api/\(secret)", key: secret, [version]),
                    Curl.get("\(url)/\(secret)?key=\(secret)", [version, "-H", "Cookie: key=\(secret)"]),
                    Curl.get("\(url)/api/x", [version, "-u", "\(secret):"]),
                    Curl.get("\(url)/api/x", key: secret, [version, "-H", "X-Request-Id: \(secret)"]),
                    Curl.get(
                        "\(url)/api/x", key: secret, [version, "-H", "Authorization: Bearer \(secret)"]),
                    Curl.get("\(url)/api/x", [version, "-H", "Authorization: Token \(secret)"]),
                    Curl.get("\(url)/api/x", key: secret, [version, "-A", secret, "-e", "\(url)/\(secret)"]),
                ]
                // What a caller sent to itself it may get back: only what the gateway says of its own counts.
                for answer in answers where answer.status >= 400 { haystack.add("refusal", answer.text) }
            }
            let malformed =
                "GET /api/x HTTP/1.1\r\nHost: localhost\r\nAuthorization : Bearer \(secret)\r\n\r\n"
            let large =
                "GET /api/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \(secret)\r\n"
                + "X-Pad: \(String(repeating: secret, count: 2_000))\r\n\r\n"
            for (text, status) in [(malformed, 400), (large, 431)] {
                let client = try gateway.connect()
                try? client.send(text)
                let answer = try client.response()
                #expect(answer.status == status)
                haystack.add("refusal", answer.text)
            }
            for port in [gateway.plaintextPort, gateway.httpsPort] {
                let answer = try PlainClient.exchange(
                    port: port,
                    "GET /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \(secret)\r\n\r\n")
                #expect(answer.status == 426)
                haystack.add("refusal of plain HTTP", answer.text)
            }
        }

        // MARK: Keys in the wrong place

        mutating func misplaceInCommands(_ secret: String, id: String) throws {
            try run("keys", "show", secret)
            try run("keys", "show", id, secret)
            try run(secret)
            try run("keys", "--\(secret)")
            try run("keys", "revoke", id, "--yes", "--reason", "because of \(secret)")
            try run("keys", "rotate", id, "--overlap", secret)
            try run("keys", "update", id, "--name", secret)
            try run("keys", "update", id, "--scope", secret)
            try run("keys", "update", id, "--if-version", secret, "--name", "x")
            try run("keys", "list", "--search", secret)
            try run("keys", "list", "--account", secret)
            try run("keys", "list", "--cursor", secret)
            try run("keys", "list", "--status", secret)
            for option in ["tier", "account", "name", "scope", "limits", "expires", "output"] {
                let outcome = try run("keys", "create", "--tier", "pro", "--\(option)", secret)
                #expect([1, 64].contains(outcome.status), "\(option)")
            }
            try run("limits", "show", secret)
            try run("explain", "--key-id", secret, "GET", "/api/x")
            try run("keys", "verify", input: secret)
            try run("keys", "show", input: secret)
            try run("keys", "scan", input: "key = \(secret)\n")
        }

        mutating func misplaceInAPI(_ secret: String, id: String) throws {
            for path in [
                "/\(secret)", "/v1/keys/\(secret)", "/v1/keys?\(secret)=1", "/v1/keys?q=\(secret)",
                "/v1/keys?account=\(secret)", "/v1/keys?cursor=\(secret)", "/v1/keys?status=\(secret)",
                "/v1/accounts/\(secret)/limits", "/v1/audit?key=\(secret)", "/v1/audit?action=\(secret)",
            ] { try manage("GET", path) }
            for member in ["tier", "account", "name", "limits", secret] {
                let response = try manage(
                    "POST", "/v1/keys", json: "{\"tier\":\"pro\",\"\(member)\":\"\(secret)\"}")
                #expect(response.status >= 400, "\(member)")
            }
            let scoped = try manage("POST", "/v1/keys", json: "{\"tier\":\"pro\",\"scopes\":[\"\(secret)\"]}")
            #expect(scoped.status == 422)
            try manage("POST", "/v1/keys/\(id)/disable", json: "{\"reason\":\"\(secret)\"}")
            try manage("POST", "/v1/keys/\(id)/revoke", json: "\"\(secret)\"")
            try manage(
                "PATCH", "/v1/keys/\(id)", fields: "If-Match: \"\(secret)\"\r\n", json: "{\"name\":\"n\"}")
            try manage(
                "POST", "/v1/keys", fields: "Idempotency-Key: \(secret)\r\n",
                json: "{\"tier\":\"pro\",\"name\":\"\(secret)\"}")
            try manage("POST", "/session", json: "{\"token\":\"\(secret)\"}")
            haystack.add(
                "answer to a wrong token", try gateway.manage("GET", "/v1/keys", token: secret).text)
        }

        // MARK: What is left behind

        mutating func collect() throws {
            for path in [
                "/metrics", "/v1/keys?limit=1000", "/v1/audit?limit=1000", "/v1/status", "/v1/config",
                "/v1/accounts/acme/limits",
            ] { try manage("GET", path) }
            haystack.add("Redis's trail", try world.redis.command("XRANGE", "gateway:audit", "-", "+"))
            try run("keys", "list", "--output", "json")
            try run("limits", "show", "acme")
            let process = "/proc/\(gateway.child.processID)/"
            for file in ["cmdline", "environ"] {
                haystack.add(
                    file, String(decoding: try Data(contentsOf: URL(filePath: process + file)), as: UTF8.self)
                )
            }
            try Deadline(seconds: 10).wait("the last spans") {
                let spans = try gateway.metric("gateway_spans_exported_total") ?? 0
                return spans > 40
            }
            haystack.add(
                "spans", collector.requests.map { String(decoding: $0.body, as: UTF8.self) }.joined())
            haystack.add("Redis", try world.redis.dump())
        }

        mutating func collectLogs() {
            haystack.add("log", gateway.log)
            haystack.add("access log", gateway.accessLog.joined(separator: "\n"))
        }
    }

    @Test("a key's text is nowhere but where it was shown, whatever was done with it")
    func noTrace() throws {
        var stage = try Stage()
        let command = try stage.makeByCommand()
        let api = try stage.makeByAPI()
        let page = try stage.makeByPage()
        var secrets = [command.secret, api.secret, page]
        for secret in secrets { try stage.use(secret) }
        for (id, secret) in [command, api] {
            try stage.misplaceInCommands(secret, id: id)
            try stage.misplaceInAPI(secret, id: id)
        }
        let rotated = try stage.gateway.manage(
            "POST", "/v1/keys/\(api.id)/rotate", json: "{\"overlap_seconds\":0}")
        let fresh = try rotated.object()["new"] as? [String: Any]
        secrets.append(try #require(fresh?["key"] as? String))
        #expect(try stage.run("keys", "revoke", command.id, "--yes", "--reason", "leak").status == 0)
        // 401, or 429 after so many failures from one address.
        try Deadline(seconds: 3).wait("the revocation") {
            let url = "https://localhost:\(stage.gateway.httpsPort)/api/x"
            return try Curl.get(url, key: command.secret).status != 200
        }
        try stage.collect()
        // A store that has gone is the hour of the unusual messages.
        stage.world.redis.kill()
        try Deadline(seconds: 5).wait("the outage") { try stage.gateway.metric("gateway_store_up") == 0 }
        for secret in secrets {
            let url = "https://localhost:\(stage.gateway.httpsPort)/api/x"
            stage.haystack.add("answer without a store", try Curl.get(url, key: secret).text)
            try stage.run("keys", "verify", input: secret)
            try stage.manage("POST", "/v1/keys", json: "{\"tier\":\"pro\",\"name\":\"\(secret)\"}")
        }
        stage.collectLogs()
        for secret in secrets { #expect(stage.haystack.places(holding: secret) == []) }
        // The search does see what stands there.
        let places = Set(stage.haystack.texts.filter { $0.text.contains(command.id) }.map(\.place))
        #expect(
            places.isSuperset(of: ["access log", "log", "Redis", "Redis's trail", "output of keys list"]))
        #expect(stage.haystack.texts.contains { $0.place == "spans" && $0.text.contains("/api/sk_live_…") })
        #expect(stage.gateway.accessLog.contains { $0.contains("/api/sk_live_…") })
    }
}

extension RedisServer {
    /// All that it holds, as it would be saved.
    func dump() throws -> String {
        try command("SAVE")
        return String(decoding: try Data(contentsOf: URL(filePath: dumpPath)), as: UTF8.self)
    }
}
