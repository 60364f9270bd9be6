/// `traces`.
enum TracesSection {
    /// Where collectors take spans in OTLP/HTTP.
    static let standardPath = "/v1/traces"
    static let standardPort = 4_318

    static func read(_ value: Value) -> TraceConfiguration? {
        guard let section = value.section(TraceKeys.description) else { return nil }
        defer { section.finish() }
        var traces = TraceConfiguration(
            host: "", port: standardPort, usesTLS: false, path: standardPath, caPath: nil,
            sampleMillionths: TraceKeys.sample.value(in: section), service: TraceKeys.service)
        traces.caPath = section["ca"].flatMap(Paths.readable)
        if let item = section["service"], let text = item.text() {
            if Names.isName(text) { traces.service = text } else { item.problem(Names.problem(text)) }
        }
        guard let item = section.required("endpoint", "traces"), let text = item.text() else { return nil }
        guard let place = parse(text) else {
            item.problem("\"\(item.written)\" is not a collector like http://127.0.0.1:4318/v1/traces")
            return nil
        }
        (traces.host, traces.port, traces.usesTLS) = (place.host, place.port, text.hasPrefix("https://"))
        traces.path = place.path
        return traces
    }

    private static func parse(_ text: String) -> (host: String, port: Int, path: String)? {
        guard let scheme = ["https://", "http://"].first(where: { text.hasPrefix($0) }) else { return nil }
        let rest = text.dropFirst(scheme.count)
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        let path = slash == rest.endIndex ? standardPath : String(rest[slash...])
        guard path.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "#") }),
            !rest[..<slash].contains("@"),
            let (host, port) = Addresses.hostAndPort(rest[..<slash], port: standardPort)
        else { return nil }
        return (host, port, path)
    }
}

enum TraceKeys {
    static let service = "gateway"
    static let sample = Setting.share(
        "sample", default: 10_000,
        "the share of calls without a trace of their own that is kept; a caller that traces decides itself")

    static let description = SectionDescription(
        "traces",
        "Spans to an OpenTelemetry collector, OTLP/HTTP in JSON: one for each sampled call and one for its "
            + "upstream. A collector that is away or slow costs spans, never calls.",
        [
            .key(
                "endpoint", "url, `http://` or `https://`", default: nil,
                "the collector; without a port \(TracesSection.standardPort), without a path "
                    + "`\(TracesSection.standardPath)`"),
            sample.description,
            .key(
                "service", "1 to \(Names.bytesMax) letters, digits, `-` and `_`", default: service,
                "`service.name`"),
            .key("ca", "path of a PEM file", default: "the system's", "trust for `https://`"),
        ])
}
