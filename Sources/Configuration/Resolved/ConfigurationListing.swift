import Keys
import Limits

// A configuration as a flat list: what a reload would change is the difference of two of them. Everything is
// resolved, so that a file that spells a default out is no change. Secrets are not part of it.

extension GatewayConfiguration {
    /// Every setting as a name like `tiers.pro.limits` and its value, in the order of the documentation.
    package var listing: [(name: String, value: String)] {
        var list = Listing()
        list.add(listen)
        list.add("admin.address", admin?.address)
        list.add("admin.token_file", admin?.tokenFile)
        list.add("admin.read_token_file", admin?.readToken == nil ? nil : "[hidden]")
        list.add("admin.hosts", admin?.hosts.joined(separator: ", "))
        list.add("admin.public_url", admin?.publicURL)
        list.add(store)
        list.add(keys)
        for tier in tiers { list.add("tiers.\(tier.name).limits", tier.limits.text) }
        for upstream in upstreams { list.add(upstream) }
        for route in routes { list.add(route, upstreams[route.upstream].name) }
        list.add("limits.head", limits.headBytes)
        list.add("limits.fields", limits.fields)
        list.add("limits.target", limits.targetBytes)
        list.add("limits.body", limits.bodyBytes)
        list.add("limits.connections", limits.connections)
        list.add("limits.handshakes", limits.handshakes)
        list.add("limits.memory", limits.memoryBytes.map { "\($0)" })
        list.add("limits.failed_authentications", "\(failedAuthenticationsPerMinute)/minute")
        list.add(timeouts)
        list.add("access_log.path", accessLog.target.text)
        list.add("access_log.format", "\(accessLog.format)")
        list.add("access_log.sample", Listing.share(accessLog.sampleMillionths))
        if let traces { list.add(traces) }
        list.add("log.level", log.level)
        list.add("log.format", log.isJSON ? "json" : "text")
        list.add("workers", workers)
        list.add("trusted_proxies", trustedProxies.joined(separator: ", "))
        list.add("rate_limit_headers", legacyRateLimitHeaders ? "legacy" : "standard")
        return list.entries
    }
}

private struct Listing {
    var entries: [(name: String, value: String)] = []

    mutating func add(_ name: String, _ value: String?) {
        if let value, !value.isEmpty { entries.append((name, value)) }
    }

    mutating func add(_ name: String, _ value: some BinaryInteger) { add(name, "\(value)") }
    mutating func add(_ name: String, milliseconds: Int) { add(name, "\(milliseconds) ms") }

    /// A share as it is written in the file.
    static func share(_ millionths: Int) -> String { "\(Double(millionths) / 1_000_000)" }

    mutating func add(_ traces: TraceConfiguration) {
        add(
            "traces.url", "\(traces.usesTLS ? "https" : "http")://\(traces.host):\(traces.port)\(traces.path)"
        )
        add("traces.ca", traces.caPath)
        add("traces.sample", Self.share(traces.sampleMillionths))
        add("traces.service", traces.service)
    }

    mutating func add(_ listen: ListenConfiguration) {
        add("listen.https.address", listen.httpsAddress)
        for (number, files) in listen.certificates.enumerated() {
            add("listen.https.certificates[\(number)].chain", files.chainPath)
            add("listen.https.certificates[\(number)].private_key", files.privateKeyPath)
        }
        add("listen.https.minimum_version", listen.minimumTLSVersion == .v1_2 ? "1.2" : "1.3")
        add("listen.https.client_ca", listen.clientCAPath)
        add("listen.https.hosts", listen.hosts.joined(separator: ", "))
        add("listen.https.strict_host", "\(listen.strictHost)")
        add("listen.plaintext.address", listen.plaintext?.address)
    }

    mutating func add(_ store: StoreConfiguration) {
        add("store.url", store.endpoint.text)
        add("store.user", store.user)
        add("store.password", store.password == nil ? nil : "[hidden]")
        add("store.database", store.database)
        add("store.ca", store.caPath)
        add("store.prefix", store.prefix)
        add("store.timeout", milliseconds: store.timeoutMilliseconds)
        add("store.on_outage", "\(store.onOutage)")
    }

    mutating func add(_ keys: KeysConfiguration) {
        add("keys.prefixes", keys.prefixes.joined(separator: ", "))
        add("keys.pepper_file", keys.pepper == nil ? nil : "[hidden]")
        add("keys.cache.entries", keys.cacheEntries)
        add("keys.cache.ttl", "\(keys.ttlSeconds) s")
        add("keys.cache.unknown_ttl", "\(keys.unknownTTLSeconds) s")
        add("keys.cache.stale_for", "\(keys.staleForSeconds) s")
        add("listen.plaintext.exposed_keys", "\(keys.exposedKeys)")
        for key in keys.staticKeys {
            let fields = key.fields.filter { $0.name != "id" }.map { "\($0.name)=\($0.value)" }
            // The digest tells two keys of one id apart, and is no secret that opens anything.
            add(
                "keys.static[\(key.id)]",
                (["sha256=\(key.digest.hexadecimal)"] + fields).joined(separator: " "))
        }
    }

    mutating func add(_ upstream: UpstreamConfiguration) {
        let name = "upstreams.\(upstream.name)"
        add("\(name).endpoints", upstream.endpoints.map(\.text).joined(separator: ", "))
        add("\(name).http2", "\(upstream.usesHTTP2)")
        add("\(name).balance", "\(upstream.balance)")
        if let health = upstream.health {
            add("\(name).health.path", health.path)
            add("\(name).health.interval", milliseconds: health.intervalMilliseconds)
            add("\(name).health.timeout", milliseconds: health.timeoutMilliseconds)
            add("\(name).health.healthy", health.healthyThreshold)
            add("\(name).health.unhealthy", health.unhealthyThreshold)
        }
        add("\(name).connect_timeout", milliseconds: upstream.connectTimeoutMilliseconds)
        add("\(name).response_timeout", milliseconds: upstream.responseTimeoutMilliseconds)
        add("\(name).idle_timeout", milliseconds: upstream.idleTimeoutMilliseconds)
        add("\(name).retries", upstream.retries)
        add("\(name).ca", upstream.caPath)
        add("\(name).idle_connections", upstream.idleConnectionsPerWorker)
        add("\(name).connections", upstream.connectionsPerWorker)
        add("\(name).queue", upstream.queuePerWorker)
        add("\(name).queue_timeout", milliseconds: upstream.queueTimeoutMilliseconds)
    }

    mutating func add(_ route: RouteConfiguration, _ upstream: String) {
        // Routes have no order and need no name: what tells them apart is path and methods.
        let methods = route.methods.isEmpty ? "" : " " + route.methods.joined(separator: ",")
        let name = "routes[\(route.path)\(methods)]"
        add("\(name).name", route.name)
        add("\(name).access", route.isPublic ? "public" : "key")
        add("\(name).scopes", route.scopes.map(\.text).joined(separator: " "))
        add("\(name).upstream", upstream)
        add("\(name).cost", route.cost)
        add("\(name).forward_authorization", "\(route.forwardAuthorization)")
        add("\(name).host", route.host)
        add("\(name).strip_prefix", route.stripPrefix)
        add("\(name).add_prefix", route.addPrefix)
        add("\(name).body", route.bodyBytes.map { "\($0)" })
        add("\(name).response_timeout", route.responseTimeoutMilliseconds.map { "\($0) ms" })
        add("\(name).idle_timeout", route.idleTimeoutMilliseconds.map { "\($0) ms" })
    }

    mutating func add(_ timeouts: Timeouts) {
        add("timeouts.handshake", milliseconds: timeouts.handshake)
        add("timeouts.head", milliseconds: timeouts.head)
        add("timeouts.body", milliseconds: timeouts.body)
        add("timeouts.body_rate", "\(timeouts.bodyRate) B/s")
        add("timeouts.idle", milliseconds: timeouts.idle)
        add("timeouts.drain_delay", milliseconds: timeouts.drainDelay)
        add("timeouts.drain", milliseconds: timeouts.drain)
    }
}

extension StoreEndpoint {
    fileprivate var text: String {
        switch self {
        case .memory: "memory:"
        case .redis(let host, let port, let tls): "\(tls ? "rediss" : "redis")://\(host):\(port)"
        case .unixSocket(let path): "redis+unix://\(path)"
        case .sentinel(let hosts, let name, let tls):
            "\(tls ? "rediss" : "redis")+sentinel://\(hosts.joined(separator: ","))/\(name)"
        case .cluster(let hosts, let tls):
            "\(tls ? "rediss" : "redis")+cluster://\(hosts.joined(separator: ","))"
        }
    }
}

extension LogTarget {
    fileprivate var text: String {
        switch self {
        case .off: "off"
        case .standardOutput: "stdout"
        case .standardError: "stderr"
        case .file(let path): path
        case .syslog(let path): "syslog:\(path)"
        }
    }
}
