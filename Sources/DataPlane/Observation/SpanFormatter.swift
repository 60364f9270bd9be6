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

    private func server(_ record: AccessRecord, _ texts: [String]) -> String {
        let route = record.route >= 0 ? names.routes[Int(record.route)] : ""
        var attributes = Self.common(record)
        attributes.append(("url.path", .text(texts[2])))
        attributes.append(("url.scheme", .text("https")))
        if !route.isEmpty { attributes.append(("http.route", .text(route))) }
        attributes.append(("client.address", .text(texts[1])))
        attributes.append(
            ("network.protocol.version", .text(record.minorVersion == AccessRecord.http2 ? "2" : "1.1")))
        attributes.append(("gateway.request_id", .text(texts[0])))
        if !texts[5].isEmpty { attributes.append(("gateway.tier", .text(texts[5]))) }
        let start = record.wallMicroseconds - record.durationMicroseconds
        return Self.span(
            record, name: route.isEmpty ? "\(record.method.name)" : "\(record.method.name) \(route)",
            span: record.serverSpan, parent: record.parentSpan, kind: 2, start: start, attributes,
            isError: record.status >= 500)
    }

    private func client(_ record: AccessRecord, _ texts: [String]) -> String {
        var attributes = Self.common(record)
        attributes.append(("server.address", .text(names.upstreams[Int(record.upstream)])))
        let start = record.wallMicroseconds - record.durationMicroseconds + record.upstreamOffsetMicroseconds
        return Self.span(
            record, name: "\(record.method.name)", span: record.clientSpan, parent: record.serverSpan,
            kind: 3,
            start: min(start, record.wallMicroseconds), attributes, isError: record.status >= 400)
    }

    private enum Value {
        case text(String)
        case number(Int64)
    }

    private static func common(_ record: AccessRecord) -> [(String, Value)] {
        var attributes: [(String, Value)] = [
            ("http.request.method", .text("\(record.method.name)")),
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
