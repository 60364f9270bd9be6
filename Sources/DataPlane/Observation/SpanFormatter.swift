import HTTPWire
import Reactor

/// Turns records of sampled calls into spans of OTLP's JSON form, on the exporter's thread: one of kind
/// server for the call, one of kind client for its upstream, with the attributes of the HTTP semantic
/// conventions.
package struct SpanFormatter: Sendable {
    private let names: LogNames

    package init(_ names: LogNames) { self.names = names }

    /// The spans of a block of records, each a JSON object.
    package func spans(_ bytes: [UInt8]) -> [String] {
        var result: [String] = []
        AccessRecord.forEach(in: bytes) { record, texts in
            result.append(server(record, texts))
            if record.clientSpan != 0, record.upstream >= 0 { result.append(client(record, texts)) }
        }
        return result
    }

    private func server(_ record: AccessRecord, _ texts: AccessRecord.Texts) -> String {
        let route = record.route >= 0 ? names.routes[Int(record.route)] : ""
        var attributes = Self.common(record)
        attributes.append(("url.path", .text(texts[.path])))
        // Without TLS nothing is served, only refused.
        attributes.append(("url.scheme", .text(record.tls > 0 ? "https" : "http")))
        if !route.isEmpty { attributes.append(("http.route", .text(route))) }
        attributes.append(("client.address", .text(texts[.client])))
        attributes.append(("network.protocol.version", .text(Self.version(record))))
        if !texts[.agent].isEmpty { attributes.append(("user_agent.original", .text(texts[.agent]))) }
        attributes.append(("gateway.request_id", .text(texts[.requestID])))
        if !texts[.tier].isEmpty { attributes.append(("gateway.tier", .text(texts[.tier]))) }
        let start = record.wallMicroseconds - record.durationMicroseconds
        return Self.span(
            record, name: route.isEmpty ? Self.name(record) : "\(Self.name(record)) \(route)",
            span: record.serverSpan, parent: record.parentSpan, kind: 2, start: start, attributes,
            isError: record.status >= 500)
    }

    private func client(_ record: AccessRecord, _ texts: AccessRecord.Texts) -> String {
        var attributes = Self.common(record)
        attributes += address(record)
        attributes.append(("url.full", .text(url(record, texts[.path]))))
        attributes.append(("gateway.upstream", .text(names.upstreams[Int(record.upstream)])))
        let start = record.wallMicroseconds - record.durationMicroseconds + record.upstreamOffsetMicroseconds
        return Self.span(
            record, name: Self.name(record), span: record.clientSpan, parent: record.serverSpan,
            kind: 3,
            start: min(start, record.wallMicroseconds), attributes, isError: record.status >= 400)
    }

    /// The endpoint as the configuration writes it, such as `http://10.0.0.1:3000`; empty when it is not
    /// known.
    private func endpoint(_ record: AccessRecord) -> String {
        let number = Int(record.endpoint)
        return names.endpoints.indices.contains(number) ? names.endpoints[number] : ""
    }

    private func address(_ record: AccessRecord) -> [(String, Value)] {
        let text = endpoint(record)
        if text.hasPrefix("unix:") { return [("server.address", .text(String(text.dropFirst(5))))] }
        guard let mark = text.firstRange(of: "://") else { return [] }
        var host = text[mark.upperBound...]
        var port: Int64 = text.hasPrefix("https") ? 443 : 80
        if !host.hasSuffix("]"), let colon = host.lastIndex(of: ":") {
            port = Int64(host[host.index(after: colon)...]) ?? port
            host = host[..<colon]
        }
        return [("server.address", .text(String(host))), ("server.port", .number(port))]
    }

    /// As it was asked for, without the query, which no log and no span has.
    private func url(_ record: AccessRecord, _ path: String) -> String {
        let text = endpoint(record)
        return (text.hasPrefix("unix:") ? "http://localhost" : text) + path
    }

    private enum Value {
        case text(String)
        case number(Int64)
    }

    /// A method that is not known would make any number of names.
    private static func name(_ record: AccessRecord) -> String {
        record.method == .other ? "HTTP" : "\(record.method.name)"
    }

    private static func version(_ record: AccessRecord) -> String {
        switch record.minorVersion {
        case AccessRecord.http2: "2"
        case 0: "1.0"
        default: "1.1"
        }
    }

    private static func common(_ record: AccessRecord) -> [(String, Value)] {
        var attributes: [(String, Value)] = [
            ("http.request.method", .text(record.method == .other ? "_OTHER" : "\(record.method.name)")),
            ("http.response.status_code", .number(Int64(record.status))),
        ]
        if record.reason != .none { attributes.append(("error.type", .text("\(record.reason.text)"))) }
        return attributes
    }

    private static func span(
        _ record: AccessRecord, name: String, span: UInt64, parent: UInt64, kind: Int, start: Int64,
        _ attributes: [(String, Value)], isError: Bool
    ) -> String {
        let trace = hexadecimal(record.traceHigh) + hexadecimal(record.traceLow)
        var text = "{\"traceId\":\"\(trace)\",\"spanId\":\"\(hexadecimal(span))\""
        if parent != 0 { text += ",\"parentSpanId\":\"\(hexadecimal(parent))\"" }
        text += ",\"name\":\"\(JSONText.escape(name))\",\"kind\":\(kind)"
        text += ",\"startTimeUnixNano\":\"\(start)000\",\"endTimeUnixNano\":\"\(record.wallMicroseconds)000\""
        text += ",\"attributes\":["
        for (index, (key, value)) in attributes.enumerated() {
            if index > 0 { text += "," }
            text += "{\"key\":\"\(key)\",\"value\":{"
            switch value {
            case .text(let value): text += "\"stringValue\":\"\(JSONText.escape(value))\""
            case .number(let value): text += "\"intValue\":\"\(value)\""
            }
            text += "}}"
        }
        return text + "]" + (isError ? ",\"status\":{\"code\":2}}" : "}")
    }

    private static func hexadecimal(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
