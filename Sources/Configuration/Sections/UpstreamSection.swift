/// `upstreams`.
enum UpstreamSection {
    /// Endpoints of all upstreams together; each costs a health thread's time and a row in the metrics.
    static let endpointsMax = 1_024

    static func read(_ value: Value) -> [UpstreamConfiguration] {
        guard let section = value.names() else { return [] }
        var upstreams: [UpstreamConfiguration] = []
        for (name, place, item) in section.all() {
            guard Names.isName(name) else {
                value.context.problems.add(place, Names.problem(name))
                continue
            }
            upstreams.append(readOne(name, item))
        }
        if section.all().isEmpty { value.problem("at least one upstream is needed") }
        if upstreams.reduce(0, { $0 + $1.endpoints.count }) > endpointsMax {
            value.problem("more than \(endpointsMax) endpoints")
        }
        return upstreams
    }

    private static func readOne(_ name: String, _ value: Value) -> UpstreamConfiguration {
        let section = value.section(UpstreamKeys.description)
        var upstream = UpstreamConfiguration(
            name: name, endpoints: [], balance: UpstreamKeys.balance.value(in: section), health: nil,
            connectTimeoutMilliseconds: UpstreamKeys.connectTimeout.value(in: section),
            responseTimeoutMilliseconds: UpstreamKeys.responseTimeout.value(in: section),
            idleTimeoutMilliseconds: UpstreamKeys.idleTimeout.value(in: section),
            retries: UpstreamKeys.retries.value(in: section), caPath: nil,
            idleConnectionsPerWorker: UpstreamKeys.idleConnections.value(in: section),
            connectionsPerWorker: UpstreamKeys.connections.value(in: section),
            queuePerWorker: UpstreamKeys.queue.value(in: section),
            queueTimeoutMilliseconds: UpstreamKeys.queueTimeout.value(in: section),
            usesHTTP2: UpstreamKeys.http2.value(in: section))
        guard let section else { return upstream }
        defer { section.finish() }
        if let list = section.required("endpoints", "upstream \"\(name)\"") {
            let items = list.listOrOne()
            if list.isEmptyList { list.problem("upstream \"\(name)\" needs at least one endpoint") }
            for item in items {
                guard let endpoint = endpoint(item) else { continue }
                if upstream.endpoints.contains(where: { $0.transport == endpoint.transport }) {
                    item.problem("\"\(item.written)\" stands here more than once")
                }
                upstream.endpoints.append(endpoint)
            }
        }
        upstream.health = section["health"].flatMap(health)
        upstream.caPath = section["ca"].flatMap(Paths.readable)
        return upstream
    }

    /// `http://host:port`, `https://host:port`, `unix:/path`.
    static func endpoint(_ value: Value) -> EndpointConfiguration? {
        guard let text = value.text() else { return nil }
        if text.hasPrefix("unix:") {
            var path = text.dropFirst(5)
            if path.hasPrefix("//") { path = path.dropFirst(2) }
            guard path.hasPrefix("/"), path.utf8.count <= 100 else {
                value.problem("\"\(value.written)\": a Unix socket is an absolute path of at most 100 bytes")
                return nil
            }
            return EndpointConfiguration(transport: .unixSocket(path: String(path)), text: text)
        }
        let tls = text.hasPrefix("https://")
        guard tls || text.hasPrefix("http://") else {
            value.problem(
                "\"\(value.written)\" is not an endpoint like http://127.0.0.1:3000, https://host or "
                    + "unix:/path")
            return nil
        }
        var authority = String(text.dropFirst(tls ? 8 : 7))
        if authority.hasSuffix("/") { authority.removeLast() }
        guard !authority.contains("@") else {
            value.problem("an endpoint carries no credentials")
            return nil
        }
        guard !authority.contains("/") else {
            value.problem("\"\(value.written)\": an endpoint has no path; a route may have add_prefix")
            return nil
        }
        guard let (host, port) = Addresses.hostAndPort(authority[...], port: tls ? 443 : 80) else {
            value.problem("\"\(value.written)\" names no host and port that could be connected to")
            return nil
        }
        return EndpointConfiguration(transport: .tcp(host: host, port: port, tls: tls), text: text)
    }

    private static func health(_ value: Value) -> HealthConfiguration? {
        guard let section = value.section(UpstreamKeys.health) else { return nil }
        defer { section.finish() }
        let path = section.required("path", "health").flatMap(Paths.request) ?? "/"
        return HealthConfiguration(
            path: path, intervalMilliseconds: UpstreamKeys.interval.value(in: section),
            timeoutMilliseconds: UpstreamKeys.timeout.value(in: section),
            healthyThreshold: UpstreamKeys.healthy.value(in: section),
            unhealthyThreshold: UpstreamKeys.unhealthy.value(in: section))
    }
}

enum UpstreamKeys {
    static let balance = Setting.choice(
        "balance",
        [("least_outstanding", Balance.leastOutstanding), ("round_robin", .roundRobin), ("hash", .hash)],
        default: "least_outstanding",
        "the less busy of two, one after the other, or an account always at one endpoint")
    static let connectTimeout = Setting.duration(
        "connect_timeout", in: 1...60_000, default: 2_000, "until TCP and TLS are up")
    static let responseTimeout = Setting.duration(
        "response_timeout", in: 1...86_400_000, default: 30_000,
        "until the answer's head, and between two arrivals of its body")
    static let retries = Setting.integer(
        "retries", in: 0...5, default: 1,
        "further attempts when nothing can have reached the application; at most one call in five")
    static let idleTimeout = Setting.duration(
        "idle_timeout", in: 100...3_600_000, default: 60_000,
        "a connection is kept for the next call this long")
    static let idleConnections = Setting.integer(
        "idle_connections", in: 0...65_536, default: 64,
        "so many connections are kept, for each worker and endpoint")
    static let connections = Setting.integer(
        "connections", in: 1...65_536, default: 1_024,
        "calls under way, for each worker and endpoint; above, calls wait")
    static let queue = Setting.integer(
        "queue", in: 0...8_192, default: 128, "calls that may wait, for each worker; above, they get 503")
    static let queueTimeout = Setting.duration(
        "queue_timeout", in: 1...60_000, default: 1_000, "a call waits this long, then it gets 503")
    static let http2 = Setting.flag(
        "http2", default: false,
        "HTTP/2, as gRPC needs: by ALPN over TLS (HTTP/1.1 where they decline), by prior knowledge in clear")
    static let interval = Setting.duration(
        "interval", in: 100...3_600_000, default: 5_000, "between two checks")
    static let timeout = Setting.duration("timeout", in: 10...60_000, default: 2_000, "for one check")
    static let healthy = Setting.integer(
        "healthy", in: 1...100, default: 2, "successes in a row that bring an endpoint back")
    static let unhealthy = Setting.integer(
        "unhealthy", in: 1...100, default: 3, "failures in a row that take it out")

    static let description = SectionDescription(
        "upstreams.<name>",
        "A service and how to talk to it. Names have 1 to \(Names.bytesMax) letters, digits, `-` and `_`.",
        [
            .key(
                "endpoints", "one or a list of `http://host:port`, `https://host:port`, `unix:/path`",
                default: nil,
                "TLS is verified; names are looked up again every 10 s; at most "
                    + "\(UpstreamSection.endpointsMax) in the file"),
            balance.description,
            .key(
                "health", "section", default: "no checks",
                "asks every endpoint; without it five failed calls in a row leave one out for 10 s where "
                    + "there is another"),
            connectTimeout.description, responseTimeout.description, idleTimeout.description,
            retries.description, http2.description,
            .key("ca", "path of a PEM file", default: "the system's", "trust for `https://` endpoints"),
            idleConnections.description, queue.description, queueTimeout.description,
            connections.description,
        ])
    static let health = SectionDescription(
        "upstreams.<name>.health", "Checks of every endpoint.",
        [
            .key("path", "path", default: nil, "what is asked for; 2xx and 3xx are well"),
            interval.description, timeout.description, healthy.description, unhealthy.description,
        ])
}
