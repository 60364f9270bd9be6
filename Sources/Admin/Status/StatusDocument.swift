import Configuration
import DataPlane
import Keys
import Limits
import Reactor

/// `/v1/status`: counts of all workers, how the last minutes went, the health of what stands around, and as
/// much of the configuration as a page needs that offers its tiers and scopes.
struct StatusDocument {
    private let server: GatewayServer
    private let facts: MetricsFacts
    private let history: History
    private let totals: Totals
    private let configuration: GatewayConfiguration
    private let health: [Bool]

    static func render(
        _ server: GatewayServer, _ facts: MetricsFacts, _ history: History, role: AdminRole
    ) -> String {
        let status = StatusDocument(server, facts, history)
        var json = JSONWriter()
        json.object(nil) { json in
            status.process(&json, role)
            status.traffic(&json)
            status.surroundings(&json)
            status.configured(&json)
            status.course(&json)
        }
        return json.text + "\n"
    }

    private init(_ server: GatewayServer, _ facts: MetricsFacts, _ history: History) {
        self.server = server
        self.facts = facts
        self.history = history
        totals = Totals(server)
        let plan = server.plan
        configuration = plan.configuration
        health = server.health(of: plan)
    }

    private func process(_ json: inout JSONWriter, _ role: AdminRole) {
        json.string("version", facts.version)
        json.string("role", role.rawValue)
        json.string("phase", "\(server.phase)")
        json.integer("now", WallClock.nowSeconds())
        json.integer("started_at", server.startedWallSeconds)
        json.integer("workers", configuration.workers)
        json.integer("nodes", server.shared.liveNodes)
    }

    // MARK: Traffic

    private func traffic(_ json: inout JSONWriter) {
        json.object("requests") { json in
            json.integer("total", totals.requests)
            for (index, count) in totals.byClass.enumerated() { json.integer("\(index + 1)xx", count) }
        }
        json.object("refusals") { json in
            for (reason, count) in totals.reasons where count > 0 { json.integer(reason, count) }
        }
        json.object("authentication") { json in
            for result in WorkerMetrics.Authentication.allCases {
                json.integer("\(result)", totals.authentication[result.rawValue])
            }
        }
        json.object("limits") { json in
            for decision in WorkerMetrics.LimitDecision.allCases {
                json.integer("\(decision)", totals.limits[decision.rawValue])
            }
        }
        json.object("latency") { json in
            let earlier = history.aMinuteAgo
            latency("requests", totals.durations, earlier?.durations, &json)
            latency("upstreams", totals.upstreamDurations, earlier?.upstreamDurations, &json)
            latency("store", totals.storeDurations, earlier?.storeDurations, &json)
        }
        json.object("connections") { json in
            json.integer("active", totals.connectionsActive)
            json.integer("idle", totals.connectionsIdle)
            json.integer("limit", configuration.limits.connections)
        }
        json.integer("plaintext_refused", totals.plaintextRefused)
    }

    /// Quantiles over the last minute in seconds; null where there was no call.
    private func latency(
        _ name: String, _ now: Latencies, _ earlier: Latencies?, _ json: inout JSONWriter
    ) {
        let minute = earlier.map { now.since($0) } ?? now
        json.object(name) { json in
            json.integer("count", minute.count)
            for (label, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
                Self.optional(label, minute.quantile(share), &json)
            }
        }
    }

    private static func optional(_ name: String?, _ value: Double?, _ json: inout JSONWriter) {
        if let value { json.decimal(name, value) } else { json.null(name) }
    }

    // MARK: What stands around

    private func surroundings(_ json: inout JSONWriter) {
        json.object("store") { json in
            json.string("kind", storeKind)
            json.bool("up", server.isStoreUp)
            json.string("on_outage", "\(configuration.store.onOutage)")
            let heard = server.shared.changesHeardMicroseconds
            let age = Double(MonotonicClock.nowMicroseconds() - heard) / 1_000_000
            Self.optional("revocation_lag", heard == 0 ? nil : age, &json)
        }
        json.array("upstreams") { json in
            var number = 0
            for upstream in configuration.upstreams {
                json.object(nil) { json in
                    json.string("name", upstream.name)
                    json.bool("checked", upstream.health != nil)
                    json.array("endpoints") { json in
                        for endpoint in upstream.endpoints {
                            json.object(nil) { json in
                                json.string("endpoint", endpoint.text)
                                json.bool("healthy", health[number])
                            }
                            number += 1
                        }
                    }
                }
            }
        }
        json.array("certificates") { json in
            for certificate in facts.certificates {
                json.object(nil) { json in
                    json.string("subject", certificate.subject)
                    json.integer("not_after", certificate.notAfter)
                }
            }
        }
        json.bool("reload_succeeded", facts.reloads.lastSucceeded)
    }

    private var storeKind: String {
        switch configuration.store.endpoint {
        case .memory: "memory"
        case .redis: "redis"
        case .unixSocket: "redis over a Unix socket"
        case .sentinel: "redis behind Sentinel"
        case .cluster: "redis cluster"
        }
    }

    // MARK: Configuration

    private func configured(_ json: inout JSONWriter) {
        json.array("tiers") { json in
            for tier in configuration.tiers {
                json.object(nil) { json in
                    json.string("name", tier.name)
                    json.string("limits", tier.limits.text)
                    json.array("windows") { json in
                        for window in tier.limits.windows {
                            json.object(nil) { json in
                                json.integer("limit", window.limit)
                                json.decimal("seconds", Double(window.lengthMicroseconds) / 1_000_000)
                            }
                        }
                    }
                }
            }
        }
        var scopes: Set<String> = []
        for route in configuration.routes { scopes.formUnion(route.scopes.map(\.text)) }
        json.array("scopes") { json in for scope in scopes.sorted() { json.string(nil, scope) } }
        json.string("example_path", examplePath)
        json.integer("https_port", server.httpsAddress.port)
        if let url = configuration.admin?.publicURL {
            json.string("public_url", url)
        } else {
            json.null("public_url")
        }
    }

    /// A path that a first call can be made to: of a route that takes GET and needs a key, as plain as any.
    private var examplePath: String {
        let routes = configuration.routes.filter {
            !$0.isPublic && ($0.methods.isEmpty || $0.methods.contains("GET"))
        }
        let plain = routes.first { !$0.path.contains("*") && !$0.path.contains("{") }
        guard let path = (plain ?? routes.first)?.path else { return "/" }
        return path.split(separator: "/").map { $0.hasPrefix("*") || $0.hasPrefix("{") ? "example" : $0 }
            .reduce("") { $0 + "/" + $1 }
    }

    // MARK: The last minutes

    /// Columns instead of rows: a page draws them so, and they take a third of the room.
    private func course(_ json: inout JSONWriter) {
        json.object("history") { json in
            column("at", &json) { json, sample in json.integer(nil, sample.atMilliseconds) }
            column("requests", &json) { json, sample in
                json.decimal(nil, Self.rate(sample.requests, sample))
            }
            column("refused", &json) { json, sample in json.decimal(nil, Self.rate(sample.refused, sample)) }
            column("failed", &json) { json, sample in json.decimal(nil, Self.rate(sample.failed, sample)) }
            column("connections", &json) { json, sample in json.integer(nil, sample.connections) }
            column("p50", &json) { json, sample in Self.optional(nil, sample.p50, &json) }
            column("p99", &json) { json, sample in Self.optional(nil, sample.p99, &json) }
        }
    }

    private func column(
        _ name: String, _ json: inout JSONWriter, _ write: (inout JSONWriter, History.Sample) -> Void
    ) {
        json.array(name) { json in for sample in history.samples { write(&json, sample) } }
    }

    /// A second.
    private static func rate(_ count: UInt64, _ sample: History.Sample) -> Double {
        Double(count) * 1_000_000 / Double(max(1, sample.microseconds))
    }
}
