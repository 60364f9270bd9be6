import Foundation
import TestSupport
import Testing

/// What Prometheus reads, by Prometheus's own tools, and that rules and panels watch something that is there.
@Suite("Monitoring", .serialized)
struct MonitoringTests {
    private static let root = URL(filePath: #filePath).resolvingSymlinksInPath()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    private static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appending(path: path), encoding: .utf8)
    }

    /// A gateway with Redis that has seen calls of every kind.
    private static func busyGateway(_ redis: RedisServer) throws -> Gateway {
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.store = "url: \"\(redis.url)\""
                $0.upstream = "health: { path: /healthz, interval: 100ms }"
            })
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        #expect(try gateway.call().status == 200)
        #expect(try gateway.call("/none").status == 404)
        #expect(try gateway.call(key: nil).status == 401)
        return gateway
    }

    private static func openMetrics(_ gateway: Gateway) throws -> Response {
        try PlainClient.exchange(
            port: gateway.adminPort,
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                + "Accept: application/openmetrics-text; version=1.0.0\r\n\r\n")
    }

    @Test("two certificates of one subject are one series, with the earlier end, and no series comes twice")
    func oneSeriesEach() throws {
        let pairs = [try Certificate.shared.get(), try Certificate.sharedRSA.get()].map {
            "{ chain: \"\($0.chainPath)\", private_key: \"\($0.keyPath)\" }"
        }
        let upstream = try Upstream()
        let gateway = try Gateway(
            Setup(upstream).with { $0.https = "certificates: [\(pairs.joined(separator: ", "))]" })
        let expiry = "gateway_tls_certificate_expiry_timestamp_seconds{subject=\"localhost\"}"
        #expect(try #require(try gateway.metric(expiry)) < Date.now.timeIntervalSince1970 + 21 * 86_400)
        for text in [try gateway.admin("/metrics").text, try Self.openMetrics(gateway).text] {
            let names = text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map { line in
                line[..<(line.lastIndex(of: " ") ?? line.endIndex)]
            }
            #expect(names.count == Set(names).count)
        }
    }

    @Test("promtool finds nothing to object to, and OpenMetrics' own parser reads the other form")
    func formats() throws {
        let redis = try RedisServer()
        let gateway = try Self.busyGateway(redis)
        let text = try gateway.admin("/metrics")
        #expect(text["Content-Type"]?.hasPrefix("text/plain; version=0.0.4") == true)
        let checked = try ChildProcess.run("promtool", ["check", "metrics"], input: text.text)
        #expect(checked.status == 0, "\(checked.output)\(checked.error)")
        #expect(checked.error.isEmpty, "\(checked.error)")
        let open = try Self.openMetrics(gateway)
        #expect(open["Content-Type"]?.hasPrefix("application/openmetrics-text; version=1.0.0") == true)
        let parsed = try ChildProcess.run(
            // Debian's own: another one on the path lacks the package.
            "/usr/bin/python3",
            [
                "-c",
                """
                import sys
                from prometheus_client.openmetrics.parser import text_string_to_metric_families
                families = list(text_string_to_metric_families(sys.stdin.read()))
                assert len(families) > 20, len(families)
                """,
            ], input: open.text)
        #expect(parsed.status == 0, "\(parsed.error)")
    }

    @Test("labels hold no key, no account and no path, however many callers there are")
    func cardinality() throws {
        let redis = try RedisServer()
        let gateway = try Self.busyGateway(redis)
        for key in [TestKey.pro, nil] { #expect(try gateway.call("/api/x", key: key).status < 500) }
        let before = try gateway.admin("/metrics").text.split(separator: "\n").count
        for number in 0..<40 { _ = try gateway.call("/api/x/\(number)", key: number % 2 == 0 ? .pro : nil) }
        let text = try gateway.admin("/metrics").text
        // Statuses and tiers have been seen; what the gateway does by itself may add a line.
        #expect(text.split(separator: "\n").count <= before + 4)
        for key in TestKey.all {
            #expect(!text.contains(key.secret) && !text.contains(key.id) && !text.contains(key.account))
        }
        #expect(!text.contains("/api/x"))
    }

    /// What the panels of the dashboard ask for.
    private static func panelExpressions() throws -> [String] {
        let object = try JSONSerialization.jsonObject(with: Data(text("Docker/grafana/gateway.json").utf8))
        let panels = try #require((object as? [String: Any])?["panels"] as? [[String: Any]])
        for panel in panels {
            #expect(!(panel["targets"] as? [Any] ?? []).isEmpty, "\(panel["title"] ?? "")")
        }
        let expressions = panels.flatMap { panel in
            (panel["targets"] as? [[String: Any]] ?? []).compactMap { $0["expr"] as? String }
        }
        #expect(expressions.count >= 14)
        return expressions
    }

    /// The metrics that rules and panels watch.
    private static func watched() throws -> Set<String> {
        let texts = try panelExpressions() + [text("Docker/alerts.yaml")]
        return Set(
            texts.flatMap { text in
                text.matches(of: /\b(gateway_[a-z_]+|process_[a-z_]+)\b/).map { String($0.1) }
            })
    }

    @Test("every rule fires when what it is for happens, none when all is well; panels ask in PromQL")
    func rulesFire() throws {
        let path = "Tests/Monitoring/alerts.yaml"
        let played = try ChildProcess.run(
            "promtool", ["test", "rules", Self.root.appending(path: path).path])
        #expect(played.status == 0, "\(played.output)\(played.error)")
        let expected = try Self.text(path)
        for match in try Self.text("Docker/alerts.yaml").matches(of: /alert: (\w+)/) {
            #expect(expected.contains("alertname=\"\(match.1)\""), "nobody tries \(match.1)")
        }
        // A rule for each expression, so that promtool reads it.
        let folder = try TemporaryFolder()
        let rules = try Self.panelExpressions().map { expression in
            "      - { record: \"panel:expression\", expr: '\(expression)' }\n"
        }
        let file = try folder.write(
            "panels.yaml", "groups:\n  - name: panels\n    rules:\n" + rules.joined())
        let read = try ChildProcess.run("promtool", ["check", "rules", "--lint=none", file])
        #expect(read.status == 0, "\(read.output)\(read.error)")
    }

    /// Values by series, comments left out.
    private static func samples(_ gateway: Gateway) throws -> [String: String] {
        var samples: [String: String] = [:]
        for line in try gateway.admin("/metrics").text.split(separator: "\n") where !line.hasPrefix("#") {
            guard let space = line.lastIndex(of: " ") else { continue }
            samples[String(line[..<space])] = String(line[space...])
        }
        return samples
    }

    /// One call at a time to its upstream, few handshakes, and an upstream that is not there.
    private static func watchedGateway(_ upstream: Upstream, _ redis: RedisServer) throws -> Gateway {
        let dead = try Ports.free()
        return try Gateway(
            Setup(upstream).with {
                $0.store = "url: \"\(redis.url)\""
                $0.tiers =
                    "standard: { limits: [1/minute] }\npro: { limits: [1000/minute] }\n"
                    + "enterprise: { limits: [1000000/minute] }"
                $0.upstream = "connections: 1\nqueue: 1\nhealth: { path: /healthz, interval: 100ms }"
                $0.moreUpstreams = "  dead: { endpoints: [\"http://127.0.0.1:\(dead)\"] }\n"
                $0.routes.append("{ path: /dead, upstream: dead }")
                $0.sections = "limits: { handshakes: 16 }\n"
            })
    }

    /// Does to a gateway what rules and panels are there to show, and looks in between.
    private static func eventfulLife() throws -> [[String: String]] {
        let (redis, upstream, gate) = (try RedisServer(), try Upstream(), Collected<Int>())
        let key = TestKey(secret: "sk_live_watched", id: "", account: "", tier: "")
        try redis.store(key.secret, ["tier": "standard", "account": "watched"])
        upstream.play { exchange in
            try exchange.receiveBody()
            if exchange.request.target == "/api/slow" {
                try Deadline(seconds: 20).wait("the gate") { !gate.values.isEmpty }
            }
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        }
        let gateway = try watchedGateway(upstream, redis)
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        var looks = [try samples(gateway)]
        for status in [200, 429] { #expect(try gateway.call(key: key).status == status) }
        #expect(try gateway.call(key: nil).status == 401)
        #expect(try gateway.call("/dead").status == 502)
        _ = try PlainClient.exchange(port: gateway.plaintextPort, Gateway.request(key: key))
        let slow = try gateway.connect()
        try slow.send(Gateway.request("/api/slow"))
        _ = try Deadline(seconds: 5).wait("the call") { upstream.requests.last?.target == "/api/slow" }
        let waiting = try gateway.connect()
        try waiting.send(Gateway.request())
        try Deadline(seconds: 5).wait("the queue") {
            try gateway.metric("gateway_upstream_queued_total") == 1
        }
        #expect(try gateway.call().status == 503)
        looks.append(try samples(gateway))
        gate.append(contentsOf: [1])
        #expect(try slow.response().status == 200 && waiting.response().status == 200)
        #expect(try gateway.connect("-alpn", "spdy/3").isClosedByGateway())
        let idle = try (0..<40).map { _ in try PlainClient(port: gateway.httpsPort) }
        upstream.isHealthy = false
        try gateway.rewriteConfiguration {
            $0.replacing(gateway.accessLogPath, with: "/dev/full") + "nonsense: true\n"
        }
        gateway.child.signal(SIGHUP)
        try Deadline(seconds: 5).wait("refusal, evictions, the endpoint's end and the exposed key") {
            looks.append(try samples(gateway))
            return try gateway.metric("gateway_config_reload_success") == 0
                && gateway.metric("gateway_tls_handshakes_evicted_total") ?? 0 > 0 && idle.count == 40
                && gateway.metricSum("gateway_upstream_healthy", holding: "main") == 0
                && gateway.metric("gateway_auth_total{result=\"exposed\"}") == 1
        }
        let (main, other) = (try Certificate.shared.get(), try Certificate.other.get())
        try gateway.rewriteConfiguration {
            $0.replacing("nonsense: true\n", with: "").replacing(main.chainPath, with: other.chainPath)
                .replacing(main.keyPath, with: other.keyPath)
        }
        try gateway.reload(to: 2)
        redis.kill()
        let unknown = try gateway.connect("-CAfile", other.chainPath, serverName: "other.test")
        try unknown.send(Gateway.request(key: nil))
        #expect(try unknown.response().status == 401)
        try Deadline(seconds: 10).wait("the outage and the lost line") {
            try gateway.metric("gateway_store_up") == 0
                && gateway.metric("gateway_access_log_dropped_total") ?? 0 > 0
        }
        looks.append(try samples(gateway))
        return looks
    }

    @Test("every metric that a rule or a panel watches changes when what it tells of happens")
    func changes() throws {
        var looks = try Self.eventfulLife()
        // Connections are refused by a gateway of few.
        let small = try Gateway(Setup(try Upstream()).with { $0.sections = "limits: { connections: 16 }\n" })
        let before = try Self.samples(small)
        // A worker has room for 64.
        let callers = try (0..<100).map { _ in try PlainClient(port: small.httpsPort) }
        try Deadline(seconds: 5).wait("the refusals of \(callers.count)") {
            try small.metric("gateway_connections_refused_total") ?? 0 > 0
        }
        let refused = "gateway_connections_refused_total"
        looks[0][refused] = before[refused]
        looks.append([refused: try Self.samples(small)[refused] ?? ""])
        for name in try Self.watched() where name != "process_max_fds" {
            let values = Dictionary(
                grouping: looks.flatMap { $0 }.filter { sample in
                    let family = String(sample.key.prefix { $0 != "{" })
                    return family == name || family == name + "_bucket"
                }, by: \.key)
            let isNew = values.keys.contains { looks[0][$0] == nil }
            #expect(isNew || values.values.contains { Set($0.map(\.value)).count > 1 }, "\(name) stays")
        }
    }

    @Test("every rule and every panel asks for metrics that there are")
    func backed() throws {
        let rules = Self.root.appending(path: "Docker/alerts.yaml").path
        let checked = try ChildProcess.run("promtool", ["check", "rules", rules])
        #expect(checked.status == 0, "\(checked.output)\(checked.error)")
        let redis = try RedisServer()
        let gateway = try Self.busyGateway(redis)
        let scraped = try gateway.admin("/metrics").text
        let known = Set(
            scraped.split(separator: "\n").filter { !$0.hasPrefix("#") }.map {
                String($0.prefix { $0 != "{" && $0 != " " })
            })
        for name in try Self.watched() {
            #expect(known.contains(name) || known.contains(name + "_bucket"), "\(name) is not scraped")
        }
        let compose = try Self.text("Docker/compose.yaml")
        #expect(compose.contains("./alerts.yaml:/etc/prometheus/alerts.yml"))
        #expect(try Self.text("Docker/prometheus.yaml").contains("/etc/prometheus/alerts.yml"))
    }
}
