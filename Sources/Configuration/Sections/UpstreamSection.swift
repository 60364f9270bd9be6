/// `upstreams`.
enum UpstreamSection {
    /// Endpoints of all upstreams together; each costs a health thread's time and a row in the metrics.
    private static let endpointsMax = 1_024

    static func read(_ value: Value) -> [UpstreamConfiguration] {
        guard let section = value.section() else { return [] }
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
        var upstream = UpstreamConfiguration(
            name: name, endpoints: [], balance: .leastOutstanding, health: nil,
            connectTimeoutMilliseconds: 2_000, responseTimeoutMilliseconds: 30_000,
            idleTimeoutMilliseconds: 60_000, retries: 1, caPath: nil, idleConnectionsPerWorker: 64,
            connectionsPerWorker: 1_024)
        guard let section = value.section() else { return upstream }
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
        upstream.balance =
            section["balance"]?.choice([
                ("least_outstanding", .leastOutstanding), ("round_robin", .roundRobin), ("hash", .hash),
            ]) ?? .leastOutstanding
        upstream.health = section["health"].flatMap(health)
        upstream.connectTimeoutMilliseconds =
            section["connect_timeout"]?.duration(in: 1...60_000) ?? 2_000
        upstream.responseTimeoutMilliseconds =
            section["response_timeout"]?.duration(in: 1...86_400_000) ?? 30_000
        upstream.idleTimeoutMilliseconds = section["idle_timeout"]?.duration(in: 100...3_600_000) ?? 60_000
        upstream.retries = section["retries"]?.integer(in: 0...5) ?? 1
        upstream.usesHTTP2 = section["http2"]?.bool() ?? false
        upstream.caPath = section["ca"].flatMap(Paths.readable)
        upstream.idleConnectionsPerWorker = section["idle_connections"]?.integer(in: 0...65_536) ?? 64
        upstream.queuePerWorker = section["queue"]?.integer(in: 0...8_192) ?? 128
        upstream.queueTimeoutMilliseconds = section["queue_timeout"]?.duration(in: 1...60_000) ?? 1_000
        upstream.connectionsPerWorker = section["connections"]?.integer(in: 1...65_536) ?? 1_024
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
        guard let section = value.section() else { return nil }
        defer { section.finish() }
        let path = section.required("path", "health").flatMap(Paths.request) ?? "/"
        return HealthConfiguration(
            path: path, intervalMilliseconds: section["interval"]?.duration(in: 100...3_600_000) ?? 5_000,
            timeoutMilliseconds: section["timeout"]?.duration(in: 10...60_000) ?? 2_000,
            healthyThreshold: section["healthy"]?.integer(in: 1...100) ?? 2,
            unhealthyThreshold: section["unhealthy"]?.integer(in: 1...100) ?? 3)
    }
}
