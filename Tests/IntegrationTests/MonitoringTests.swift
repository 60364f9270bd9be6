import Foundation
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
        let before = try gateway.admin("/metrics").text.split(separator: "\n").count
        for number in 0..<40 { _ = try gateway.call("/api/x/\(number)", key: number % 2 == 0 ? .pro : nil) }
        let text = try gateway.admin("/metrics").text
        // A status and a tier that had not been seen, at most.
        #expect(text.split(separator: "\n").count <= before + 4)
        for key in TestKey.all {
            #expect(!text.contains(key.secret) && !text.contains(key.id) && !text.contains(key.account))
        }
        #expect(!text.contains("/api/x"))
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
        let object = try JSONSerialization.jsonObject(
            with: Data(Self.text("Docker/grafana/gateway.json").utf8))
        let panels = try #require((object as? [String: Any])?["panels"] as? [[String: Any]])
        let expressions = panels.flatMap { panel in
            (panel["targets"] as? [[String: Any]] ?? []).compactMap { $0["expr"] as? String }
        }
        #expect(expressions.count >= 14)
        for panel in panels {
            #expect(!(panel["targets"] as? [Any] ?? []).isEmpty, "\(panel["title"] ?? "")")
        }
        for text in expressions + [try Self.text("Docker/alerts.yaml")] {
            for match in text.matches(of: /\b(gateway_[a-z_]+|process_[a-z_]+)\b/) {
                let name = String(match.1)
                #expect(known.contains(name) || known.contains(name + "_bucket"), "\(name) is not scraped")
            }
        }
        let compose = try Self.text("Docker/compose.yaml")
        #expect(compose.contains("./alerts.yaml:/etc/prometheus/alerts.yml"))
        #expect(try Self.text("Docker/prometheus.yaml").contains("/etc/prometheus/alerts.yml"))
    }
}
