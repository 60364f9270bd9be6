import Foundation
import Synchronization
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
        #expect(try gateway.call("/api/traced", fields: parent).status == 200)
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
        // The upstream continues the client's span.
        let forwarded = try #require(upstream.requests.last?["traceparent"])
        #expect(forwarded == "00-\(Self.trace)-\(client["spanId"] as? String ?? "")-01")
        try Deadline(seconds: 5).wait("the count") { try gateway.metric("gateway_spans_exported_total") == 2 }
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
        let collector = try Upstream { exchange in
            try exchange.receiveBody()
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
        collector.stop()
        let client = try gateway.connect()
        for _ in 0..<50 {
            try client.send(Gateway.request())
            #expect(try client.response().status == 200)
        }
        gateway.child.signal(SIGTERM)
        #expect(try gateway.child.wait(within: 10) == .exited(0))
    }
}
