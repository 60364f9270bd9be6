import Foundation
import Synchronization
import TestSupport
import Testing

/// Spans, as an OpenTelemetry collector gets them.
@Suite("Traces", .serialized)
struct TraceTests {
    private static let trace = "0af7651916cd43dd8448eb211c80319c"
    private static let caller = "b7ad6b7169203331"

    private static func gateway(_ collector: String, _ upstream: Upstream, sample: String) throws -> Gateway {
        try Gateway(
            Setup(upstream).with {
                $0.sections = "traces: { endpoint: \"\(collector)\", sample: \(sample), service: edge }\n"
            })
    }

    private static func spans(_ body: [UInt8]) throws -> [[String: Any]] {
        let object = try JSONSerialization.jsonObject(with: Data(body)) as? [String: Any]
        let resources = object?["resourceSpans"] as? [[String: Any]] ?? []
        let scopes = resources.flatMap { $0["scopeSpans"] as? [[String: Any]] ?? [] }
        return scopes.flatMap { $0["spans"] as? [[String: Any]] ?? [] }
    }

    private static func attribute(_ name: String, of span: [String: Any]) -> String? {
        let attributes = span["attributes"] as? [[String: Any]] ?? []
        let value = attributes.first { $0["key"] as? String == name }?["value"] as? [String: Any]
        return value?.values.first as? String
    }

    @Test("a call whose caller traces it has a server and a client span that hang together, others have none")
    func spans() throws {
        let collector = try Upstream(Upstream.answer("{}"))
        let upstream = try Upstream()
        let gateway = try Self.gateway("\(collector.endpoint)/v1/traces", upstream, sample: "0%")
        #expect(try gateway.call("/api/untraced").status == 200)
        let parent = "traceparent: 00-\(Self.trace)-\(Self.caller)-01\r\n"
        let agent = "User-Agent: trace-test/1\r\n"
        #expect(try gateway.call("/api/traced", fields: parent + agent).status == 200)
        let sent = try collector.latest()
        #expect(sent.target == "/v1/traces" && sent["Content-Type"] == "application/json")
        #expect(String(decoding: sent.body, as: UTF8.self).contains("\"edge\""))
        let spans = try Self.spans(sent.body)
        try #require(spans.count == 2)
        let (server, client) = (spans[0], spans[1])
        for span in spans { #expect(span["traceId"] as? String == Self.trace) }
        #expect(server["parentSpanId"] as? String == Self.caller)
        #expect(server["kind"] as? Int == 2 && client["kind"] as? Int == 3)
        #expect(client["parentSpanId"] as? String == server["spanId"] as? String)
        #expect(server["name"] as? String == "GET /api/**")
        #expect(Self.attribute("http.request.method", of: server) == "GET")
        #expect(Self.attribute("http.response.status_code", of: server) == "200")
        #expect(Self.attribute("url.path", of: server) == "/api/traced")
        #expect(Self.attribute("http.route", of: server) == "/api/**")
        #expect(Self.attribute("server.address", of: client) == "127.0.0.1")
        #expect(Self.attribute("server.port", of: client) == "\(upstream.port)")
        #expect(Self.attribute("url.full", of: client) == "\(upstream.endpoint)/api/traced")
        #expect(Self.attribute("url.scheme", of: server) == "https")
        #expect(Self.attribute("user_agent.original", of: server) == "trace-test/1")
        // The upstream continues the client's span.
        let forwarded = try #require(upstream.requests.last?["traceparent"])
        #expect(forwarded == "00-\(Self.trace)-\(client["spanId"] as? String ?? "")-01")
        try Deadline(seconds: 5).wait("the count") { try gateway.metric("gateway_spans_exported_total") == 2 }
    }

    @Test("a refused call that is sampled has its server span, with status and reason, and no client span")
    func refusals() throws {
        let collector = try Upstream(Upstream.answer("{}"))
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.tiers = """
                    standard:   { limits: [1/minute] }
                    pro:        { limits: [1000/minute] }
                    enterprise: { limits: [1000000/minute] }
                    """
                $0.routes = [
                    "{ path: /api/**, upstream: main }",
                    "{ path: /scoped, scopes: [\"a:b\"], upstream: main }",
                    "{ path: /dead, upstream: dead }",
                ]
                $0.moreUpstreams =
                    "  dead: { endpoints: [\"http://127.0.0.1:\((try? Ports.free()) ?? 1)\"] }\n"
                $0.sections = "traces: { endpoint: \"\(collector.endpoint)\", sample: 0% }\n"
            })
        #expect(try gateway.call("/api/x", key: .standard).status == 200)
        #expect(try gateway.call("/api/x", key: nil).status == 401)
        let parent = "traceparent: 00-\(Self.trace)-\(Self.caller)-01\r\n"
        let wanted: [(path: String, key: TestKey?, status: Int, reason: String, route: String?)] = [
            ("/api/x", nil, 401, "key_missing", nil), ("/api/x", .standard, 429, "limited", "/api/**"),
            ("/scoped", .pro, 403, "scope_missing", "/scoped"), ("/none", .pro, 404, "no_route", nil),
        ]
        for call in wanted {
            #expect(try gateway.call(call.path, key: call.key, fields: parent).status == call.status)
        }
        // One that the upstream failed has both.
        #expect(try gateway.call("/dead", fields: parent).status == 502)
        try Deadline(seconds: 5).wait("the spans") { try gateway.metric("gateway_spans_exported_total") == 6 }
        let spans = try collector.requests.flatMap { try Self.spans($0.body) }
        for (call, span) in zip(wanted, spans) {
            #expect(span["kind"] as? Int == 2 && span["traceId"] as? String == Self.trace)
            #expect(span["parentSpanId"] as? String == Self.caller)
            #expect(Self.attribute("http.response.status_code", of: span) == "\(call.status)")
            #expect(Self.attribute("error.type", of: span) == call.reason)
            #expect(Self.attribute("url.path", of: span) == call.path)
            #expect(Self.attribute("http.route", of: span) == call.route)
            // The caller's mistake is none of the server's (semantic conventions for HTTP spans).
            #expect(span["status"] == nil)
        }
        let failed = Array(spans.dropFirst(wanted.count))
        try #require(failed.count == 2)
        #expect(failed.map { $0["kind"] as? Int } == [2, 3])
        for span in failed {
            #expect(Self.attribute("error.type", of: span) == "connect_failed")
            #expect((span["status"] as? [String: Any])?["code"] as? Int == 2)
        }
        try Deadline(seconds: 5).wait("the lines") { gateway.accessLog.count == 7 }
        #expect(gateway.accessLog.count { $0.contains("\"trace_id\":\"\(Self.trace)\"") } == 5)
    }

    @Test("of calls without a parent the share is kept that the configuration names")
    func sampling() throws {
        let collector = try Upstream(Upstream.answer("{}"))
        let upstream = try Upstream()
        let gateway = try Self.gateway(collector.endpoint, upstream, sample: "100%")
        for _ in 0..<5 { #expect(try gateway.call().status == 200) }
        try Deadline(seconds: 5).wait("the spans") {
            try gateway.metric("gateway_spans_exported_total") == 10
        }
        #expect(upstream.requests.allSatisfy { $0["traceparent"]?.hasSuffix("-01") == true })
        // A caller that does not trace decides for its call.
        let parent = "traceparent: 00-\(Self.trace)-\(Self.caller)-00\r\n"
        #expect(try gateway.call("/api/x", fields: parent).status == 200)
        #expect(upstream.requests.last?["traceparent"]?.hasSuffix("-00") == true)
    }

    @Test("a collector that is down, answers nonsense or refuses costs spans and no call; it is tried again")
    func badCollector() throws {
        let answers = Mutex(["HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n", "nonsense\r\n\r\n"])
        let arrivals = Collected<ContinuousClock.Instant>()
        let collector = try Upstream { exchange in
            try exchange.receiveBody()
            arrivals.append(contentsOf: [.now])
            let answer = answers.withLock { $0.isEmpty ? nil : $0.removeFirst() }
            try exchange.send(answer ?? "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            exchange.close()
        }
        let gateway = try Self.gateway(collector.endpoint, try Upstream(), sample: "100%")
        #expect(try gateway.call().status == 200)
        // 503, then a second later nonsense, then two seconds later taken.
        try Deadline(seconds: 15).wait("the spans") {
            try gateway.metric("gateway_spans_exported_total") == 2
        }
        #expect(collector.requests.count == 3)
        #expect(gateway.log.contains("traces: the collector answers 503"))
        let times = arrivals.values
        let pauses = zip(times, times.dropFirst()).map { $0.duration(to: $1) }
        #expect(pauses[0] >= .milliseconds(900) && pauses[1] >= .milliseconds(1_900), "\(pauses)")
        collector.stop()
        let client = try gateway.connect()
        for _ in 0..<50 {
            try client.send(Gateway.request())
            #expect(try client.response().status == 200)
        }
        gateway.child.signal(SIGTERM)
        #expect(try gateway.child.wait(within: 10) == .exited(0))
    }

    @Test(
        "a collector that names a time is asked again then, not before, and not an hour later",
        arguments: ["seconds", "date"])
    func retryAfter(_ form: String) throws {
        let arrivals = Collected<ContinuousClock.Instant>()
        let collector = try Upstream { exchange in
            try exchange.receiveBody()
            arrivals.append(contentsOf: [.now])
            guard arrivals.values.count == 1 else {
                try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                return
            }
            let formatter = DateFormatter()
            formatter.locale = Locale(identifier: "en_US_POSIX")
            formatter.timeZone = TimeZone(identifier: "GMT")
            formatter.dateFormat = "EEE, dd MMM yyyy HH:mm:ss 'GMT'"
            // Of which up to one is over already: dates have whole seconds.
            let value = form == "date" ? formatter.string(from: Date(timeIntervalSinceNow: 4)) : "3"
            try exchange.send(
                "HTTP/1.1 429 Slow\r\nRetry-After: \(value)\r\nContent-Length: 0\r\n\r\n")
        }
        let gateway = try Self.gateway(collector.endpoint, try Upstream(), sample: "100%")
        #expect(try gateway.call().status == 200)
        try Deadline(seconds: 15).wait("the spans") {
            try gateway.metric("gateway_spans_exported_total") == 2
        }
        let pause = arrivals.values[0].duration(to: arrivals.values[1])
        // Left to itself it would try again after one second.
        #expect(pause >= .milliseconds(1_900) && pause < .seconds(6), "\(pause)")
        #expect(gateway.log.contains("traces: the collector answers 429"))
    }

    @Test("a collector that takes everything and answers nothing costs spans, which are counted, and no call")
    func slowCollector() throws {
        let isOver = Mutex(false)
        let collector = try Upstream { exchange in
            try exchange.receiveBody()
            try Deadline(seconds: 60).wait("the end") { isOver.withLock { $0 } }
        }
        let gateway = try Self.gateway(collector.endpoint, try Upstream(), sample: "100%")
        #expect(try gateway.call().status == 200)
        try Deadline(seconds: 5).wait("the collector") { !collector.requests.isEmpty }
        // More than the exporter keeps, while it waits for an answer.
        let client = try gateway.connect()
        let batch = String(repeating: Gateway.request("/none") + Gateway.request("/api/x"), count: 50)
        var slowest = Duration.zero
        for _ in 0..<80 {
            let start = ContinuousClock.now
            try client.send(batch)
            for _ in 0..<50 {
                #expect(try client.response().status == 404)
                #expect(try client.response().status == 200)
            }
            slowest = max(slowest, start.duration(to: .now))
        }
        #expect(slowest < .seconds(3), "a batch of 100 calls took \(slowest)")
        try Deadline(seconds: 20).wait("the loss") {
            try gateway.metric("gateway_spans_dropped_total") ?? 0 > 0
        }
        #expect(try gateway.metric("gateway_spans_exported_total") == 0)
        #expect(gateway.log.contains("traces: the collector cannot be reached: no answer in time"))
        #expect(collector.requests.count <= 4, "it is asked again and again")
        let before = ContinuousClock.now
        gateway.child.signal(SIGTERM)
        #expect(try gateway.child.wait(within: 10) == .exited(0))
        #expect(before.duration(to: .now) < .seconds(4), "the collector holds up the end")
        isOver.withLock { $0 = true }
    }
}
