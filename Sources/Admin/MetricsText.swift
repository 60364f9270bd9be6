import Configuration
package import DataPlane
import HTTPWire
import Reactor

// Prometheus' text format, and OpenMetrics for those who ask for it. Labels never carry a key, an account or
// a path: their values come from the configuration and from fixed lists.

/// What a scrape needs beyond the workers' counters.
package struct MetricsFacts: Sendable {
    package var version: String
    /// Seconds since 1970 at which each certificate ends, by subject.
    package var certificates: [(subject: String, notAfter: Int64)]
    package var reloads: ReloadFacts

    package init(
        version: String, certificates: [(subject: String, notAfter: Int64)], reloads: ReloadFacts
    ) {
        self.version = version
        self.certificates = certificates
        self.reloads = reloads
    }
}

/// How reloads of the configuration have gone.
package struct ReloadFacts: Sendable {
    /// Whether the last one was accepted; true before the first.
    package var lastSucceeded = true
    package var accepted: UInt64 = 0
    package var refused: UInt64 = 0
    /// When the configuration in use was read, Unix seconds.
    package var acceptedSeconds: Int64

    package init(acceptedSeconds: Int64) { self.acceptedSeconds = acceptedSeconds }
}

/// Renders all metrics of a gateway.
package struct MetricsText {
    private let server: GatewayServer
    private let facts: MetricsFacts
    private let workers: [WorkerMetrics]
    private let isOpenMetrics: Bool
    private let plan: ServingPlan
    /// With the numbers under which the workers count them.
    private let routes: [(name: String, number: Int)]
    private let tiers: [(name: String, number: Int)]
    private var text = ""

    /// - Parameter openMetrics: whether the scraper asked for `application/openmetrics-text`.
    package static func render(_ server: GatewayServer, _ facts: MetricsFacts, openMetrics: Bool) -> String {
        var renderer = MetricsText(server, facts, openMetrics)
        renderer.requests()
        renderer.reasons()
        renderer.histograms()
        renderer.gate()
        renderer.connections()
        renderer.upstreams()
        renderer.process()
        if openMetrics { renderer.text += "# EOF\n" }
        return renderer.text
    }

    private init(_ server: GatewayServer, _ facts: MetricsFacts, _ isOpenMetrics: Bool) {
        self.server = server
        self.facts = facts
        self.isOpenMetrics = isOpenMetrics
        workers = server.metrics
        plan = server.plan
        routes = [("none", -1)] + plan.routeSeries
        tiers = plan.tierSeries
        text.reserveCapacity(1 << 16)
    }

    private func sum(_ read: (WorkerMetrics) -> UInt64) -> UInt64 {
        workers.reduce(0) { $0 &+ read($1) }
    }

    private func sum(_ scalar: WorkerMetrics.Scalar) -> UInt64 { sum { $0.value(scalar) } }

    /// OpenMetrics names a counter's family without its `_total`.
    private mutating func family(_ name: String, _ type: String, _ help: String) {
        var family = name
        if isOpenMetrics, type == "counter", family.hasSuffix("_total") { family.removeLast(6) }
        text += "# HELP \(family) \(help)\n# TYPE \(family) \(type)\n"
    }

    private mutating func line(_ name: String, _ labels: [(String, String)], _ value: String) {
        text += name
        if !labels.isEmpty {
            text += "{"
            for (index, label) in labels.enumerated() {
                if index > 0 { text += "," }
                text += "\(label.0)=\"\(Self.escape(label.1))\""
            }
            text += "}"
        }
        text += " \(value)\n"
    }

    static func escape(_ text: String) -> String {
        var result = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": result += "\\\\"
            case "\"": result += "\\\""
            case "\n": result += "\\n"
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }

    private mutating func requests() {
        family("gateway_requests_total", "counter", "Answered requests.")
        for route in routes {
            for method in Method.allCases
            where sum({ $0.requests(route: route.number, method: Int(method.rawValue)) }) > 0 {
                for slot in StatusSlot.labels.indices where !StatusSlot.labels[slot].isEmpty {
                    for tier in [(name: "none", number: -1)] + tiers {
                        let count = sum {
                            $0.requests(
                                route: route.number, method: Int(method.rawValue), statusSlot: slot,
                                tier: tier.number)
                        }
                        guard count > 0 else { continue }
                        line(
                            "gateway_requests_total",
                            [
                                ("route", route.name), ("method", "\(method.name)"),
                                ("code", StatusSlot.labels[slot]), ("tier", tier.name),
                            ], "\(count)")
                    }
                }
            }
        }
    }

    private mutating func reasons() {
        family("gateway_refusals_total", "counter", "Calls refused or failed, by the access log's reason.")
        var totals = workers.first?.reasonCounts ?? []
        for worker in workers.dropFirst() {
            for (index, item) in worker.reasonCounts.enumerated() { totals[index].count &+= item.count }
        }
        for (reason, count) in totals { line("gateway_refusals_total", [("reason", reason)], "\(count)") }
    }

    private mutating func histograms() {
        family(
            "gateway_request_duration_seconds", "histogram",
            "From the whole request head to the end of the answer.")
        for route in routes {
            histogram("gateway_request_duration_seconds", ("route", route.name)) { [workers] cell in
                workers.reduce(0) { $0 &+ $1.routeDuration(route: route.number, cell: cell) }
            }
        }
        family(
            "gateway_upstream_duration_seconds", "histogram",
            "From the choice of an endpoint to its last byte.")
        for (upstream, number, _) in plan.upstreamNumbers {
            histogram("gateway_upstream_duration_seconds", ("upstream", upstream.name)) { [workers] cell in
                workers.reduce(0) { $0 &+ $1.upstreamDuration(upstream: number, cell: cell) }
            }
        }
        family("gateway_store_duration_seconds", "histogram", "Time until the store answered.")
        for (number, command) in ["lookup", "take"].enumerated() {
            histogram("gateway_store_duration_seconds", ("command", command)) { [workers] cell in
                workers.reduce(0) { $0 &+ $1.storeDuration(command: number, cell: cell) }
            }
        }
    }

    private mutating func histogram(_ name: String, _ label: (String, String), _ cell: (Int) -> UInt64) {
        var total: UInt64 = 0
        for bucket in 0..<LatencyBuckets.count {
            total &+= cell(bucket)
            let bound =
                bucket < LatencyBuckets.upperBoundsMicroseconds.count
                ? Self.seconds(LatencyBuckets.upperBoundsMicroseconds[bucket]) : "+Inf"
            line("\(name)_bucket", [label, ("le", bound)], "\(total)")
        }
        line("\(name)_sum", [label], Self.seconds(Int64(clamping: cell(LatencyBuckets.count))))
        line("\(name)_count", [label], "\(total)")
    }

    /// Microseconds as seconds, exactly.
    static func seconds(_ microseconds: Int64) -> String {
        let whole = microseconds / 1_000_000
        var fraction = "\(microseconds % 1_000_000 + 1_000_000)".dropFirst()
        while fraction.hasSuffix("0") { fraction = fraction.dropLast() }
        return fraction.isEmpty ? "\(whole)" : "\(whole).\(fraction)"
    }

    private mutating func gate() {
        family("gateway_auth_total", "counter", "Authentications by result.")
        for result in WorkerMetrics.Authentication.allCases {
            var count = sum { $0.value(result) }
            if result == .exposed { count &+= server.shared.exposedCount }
            line("gateway_auth_total", [("result", "\(result)")], "\(count)")
        }
        family("gateway_ratelimit_total", "counter", "Decisions of the limiter.")
        for tier in tiers {
            for decision in WorkerMetrics.LimitDecision.allCases {
                line(
                    "gateway_ratelimit_total", [("tier", tier.name), ("decision", "\(decision)")],
                    "\(sum { $0.value(decision, tier: tier.number) })")
            }
        }
        family(
            "gateway_ratelimit_near_total", "counter", "Calls let through with over 80 % of the limit used.")
        for tier in tiers {
            line(
                "gateway_ratelimit_near_total", [("tier", tier.name)],
                "\(sum { $0.nearLimitCount(tier: tier.number) })")
        }
        family("gateway_plaintext_refused_total", "counter", "Plain HTTP requests refused.")
        line(
            "gateway_plaintext_refused_total", [("credential", "none")], "\(sum(.plaintextWithoutCredential))"
        )
        line(
            "gateway_plaintext_refused_total", [("credential", "present")], "\(sum(.plaintextWithCredential))"
        )
        family("gateway_key_cache_total", "counter", "Look-ups in the key cache.")
        for result in WorkerMetrics.CacheResult.allCases {
            line("gateway_key_cache_total", [("result", "\(result)")], "\(sum { $0.value(result) })")
        }
        family("gateway_key_record_problems_total", "counter", "Key records that could not be used.")
        line("gateway_key_record_problems_total", [], "\(sum(.recordProblems))")
        if plan.configuration.store.endpoint != .memory {
            family(
                "gateway_revocation_lag_seconds", "gauge",
                "Age of the last proof that changes of keys are heard: so late can a revocation be.")
            let heard = server.shared.changesHeardMicroseconds
            let age = Self.seconds(MonotonicClock.nowMicroseconds() - heard)
            line("gateway_revocation_lag_seconds", [], heard == 0 ? "+Inf" : age)
            family(
                "gateway_store_generations_total", "counter",
                "Failovers and restarts of the store that may have lost its latest writes.")
            line("gateway_store_generations_total", [], "\(server.shared.storeGeneration)")
            family(
                "gateway_store_nodes", "gauge",
                "Gateways that share the store, as counted last: each has a like share of every limit."
            )
            line("gateway_store_nodes", [], "\(server.shared.liveNodes)")
        }
        if let due = server.shared.keysDueForRotation {
            family(
                "gateway_keys_due_for_rotation", "gauge",
                "Usable keys that were made 90 days ago or have not been used for 90 days.")
            line("gateway_keys_due_for_rotation", [], "\(due)")
        }
        family("gateway_store_up", "gauge", "Whether every worker reaches the store.")
        line("gateway_store_up", [], server.isStoreUp ? "1" : "0")
    }

    private mutating func connections() {
        family("gateway_connections", "gauge", "Callers' connections.")
        line("gateway_connections", [("state", "active")], "\(sum(.connectionsActive))")
        line("gateway_connections", [("state", "idle")], "\(sum(.connectionsIdle))")
        family("gateway_connections_accepted_total", "counter", "Connections accepted.")
        line("gateway_connections_accepted_total", [], "\(sum(.connectionsAccepted))")
        family("gateway_connections_refused_total", "counter", "Connections closed for want of room.")
        line("gateway_connections_refused_total", [], "\(sum(.connectionsRefused))")
        family("gateway_tls_handshakes_total", "counter", "Completed TLS handshakes.")
        let handshakes: [(String, String, WorkerMetrics.Scalar)] = [
            ("1.2", "false", .handshakesTLS12Full), ("1.2", "true", .handshakesTLS12Resumed),
            ("1.3", "false", .handshakesTLS13Full), ("1.3", "true", .handshakesTLS13Resumed),
        ]
        for (version, resumed, scalar) in handshakes {
            line(
                "gateway_tls_handshakes_total", [("version", version), ("resumed", resumed)], "\(sum(scalar))"
            )
        }
        family(
            "gateway_tls_handshakes_evicted_total", "counter", "Handshakes closed to make room for others.")
        line("gateway_tls_handshakes_evicted_total", [], "\(sum(.handshakesEvicted))")
        family("gateway_idle_closed_total", "counter", "Idle connections closed to save memory.")
        line("gateway_idle_closed_total", [], "\(sum(.idleClosedForMemory))")
        family("gateway_tls_handshake_failures_total", "counter", "TLS handshakes that failed.")
        line("gateway_tls_handshake_failures_total", [], "\(sum(.handshakesFailed))")
        family(
            "gateway_tls_certificate_expiry_timestamp_seconds", "gauge",
            "When a certificate ends, Unix seconds.")
        for certificate in facts.certificates {
            line(
                "gateway_tls_certificate_expiry_timestamp_seconds", [("subject", certificate.subject)],
                "\(certificate.notAfter)")
        }
        http2()
        family("gateway_received_bytes_total", "counter", "Decrypted bytes from callers.")
        line("gateway_received_bytes_total", [], "\(sum(.bytesFromDownstream))")
        family("gateway_sent_bytes_total", "counter", "Bytes to callers before encryption.")
        line("gateway_sent_bytes_total", [], "\(sum(.bytesToDownstream))")
        family("gateway_spans_exported_total", "counter", "Spans that the collector has taken.")
        line("gateway_spans_exported_total", [], "\(server.shared.sentSpanCount)")
        family("gateway_spans_dropped_total", "counter", "Spans given up: the collector is away or too slow.")
        line("gateway_spans_dropped_total", [], "\(sum(.spansDropped) &+ server.shared.lostSpanCount)")
        family(
            "gateway_access_log_dropped_total", "counter",
            "Access-log lines that could not be written in time, or at all.")
        line(
            "gateway_access_log_dropped_total", [], "\(sum(.accessLogDropped) &+ server.shared.lostLineCount)"
        )
    }

    private mutating func http2() {
        family("gateway_http2_streams_total", "counter", "HTTP/2 streams that callers have opened.")
        line("gateway_http2_streams_total", [], "\(sum(.streamsOpened))")
        family("gateway_http2_streams_refused_total", "counter", "HTTP/2 streams refused, by reason.")
        line("gateway_http2_streams_refused_total", [("reason", "malformed")], "\(sum(.streamsMalformed))")
        line("gateway_http2_streams_refused_total", [("reason", "no_room")], "\(sum(.streamsRefused))")
        family(
            "gateway_http2_floods_total", "counter",
            "HTTP/2 connections ended because they sent frames without end and without a call.")
        line("gateway_http2_floods_total", [], "\(sum(.floodsEnded))")
    }

    private mutating func upstreams() {
        family("gateway_upstream_healthy", "gauge", "Whether active checks let calls go to an endpoint.")
        let health = server.health
        var number = 0
        for upstream in plan.configuration.upstreams {
            for endpoint in upstream.endpoints {
                line(
                    "gateway_upstream_healthy",
                    [("upstream", upstream.name), ("endpoint", endpoint.text)], health[number] ? "1" : "0")
                number += 1
            }
        }
        family("gateway_upstream_connections", "gauge", "Open connections to upstreams.")
        line("gateway_upstream_connections", [], "\(sum(.upstreamConnectionsOpen))")
        family("gateway_upstream_connects_total", "counter", "Connections opened to upstreams.")
        line("gateway_upstream_connects_total", [], "\(sum(.upstreamConnects))")
        family("gateway_upstream_connect_failures_total", "counter", "Connections that could not be opened.")
        line("gateway_upstream_connect_failures_total", [], "\(sum(.upstreamConnectFailures))")
        family("gateway_upstream_retries_total", "counter", "Calls sent a second time.")
        line("gateway_upstream_retries_total", [], "\(sum(.upstreamRetries))")
        family("gateway_upstream_queued_total", "counter", "Calls that waited for a connection to be free.")
        line("gateway_upstream_queued_total", [], "\(sum(.upstreamQueued))")
        family("gateway_upstream_overflows_total", "counter", "Calls refused because an endpoint was full.")
        line("gateway_upstream_overflows_total", [], "\(sum(.upstreamQueueOverflows))")
    }

    private mutating func process() {
        family(
            "gateway_config_reload_success", "gauge",
            "Whether the last reload of the configuration took effect.")
        line("gateway_config_reload_success", [], facts.reloads.lastSucceeded ? "1" : "0")
        family("gateway_config_reloads_total", "counter", "Reloads of the configuration.")
        line("gateway_config_reloads_total", [("result", "accepted")], "\(facts.reloads.accepted)")
        line("gateway_config_reloads_total", [("result", "refused")], "\(facts.reloads.refused)")
        family(
            "gateway_config_last_accepted_timestamp_seconds", "gauge",
            "When the configuration in use was read, Unix seconds.")
        line(
            "gateway_config_last_accepted_timestamp_seconds", [], "\(facts.reloads.acceptedSeconds)")
        family(
            "gateway_config_generation", "gauge", "The configuration that every worker has gone over to.")
        line(
            "gateway_config_generation", [], "\(workers.map { $0.value(.generation) }.min() ?? 0)")
        family("gateway_build_info", "gauge", "The running program.")
        line("gateway_build_info", [("version", facts.version)], "1")
        family("process_start_time_seconds", "gauge", "Start of the process, Unix seconds.")
        line("process_start_time_seconds", [], "\(server.startedWallSeconds)")
        let usage = ProcessUsage.read()
        family("process_cpu_seconds_total", "counter", "CPU time of the process.")
        line("process_cpu_seconds_total", [], Self.seconds(usage.cpuMicroseconds))
        family("process_resident_memory_bytes", "gauge", "Resident memory.")
        line("process_resident_memory_bytes", [], "\(usage.residentBytes)")
        family("process_open_fds", "gauge", "Open file descriptors.")
        line("process_open_fds", [], "\(usage.openDescriptors)")
        family("process_max_fds", "gauge", "Allowed file descriptors.")
        line("process_max_fds", [], "\(usage.descriptorLimit)")
    }
}
