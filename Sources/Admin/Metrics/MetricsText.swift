import Configuration
import DataPlane
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

/// The metrics of a gateway.
final class MetricsText {
    private let server: GatewayServer
    /// What both forms were compiled for.
    private var generation: UInt32 = 0
    private var subjects: [String] = []
    private var plain: Exposition?
    private var openMetrics: Exposition?

    init(_ server: GatewayServer) { self.server = server }

    /// - Parameter wantsOpenMetrics: whether the scraper asked for `application/openmetrics-text`.
    func render(_ facts: MetricsFacts, wantsOpenMetrics: Bool) -> [UInt8] {
        let plan = server.plan
        let present = facts.certificates.map(\.subject)
        if plan.generation != generation || present != subjects {
            (plain, openMetrics) = (nil, nil)
            (generation, subjects) = (plan.generation, present)
        }
        let form =
            (wantsOpenMetrics ? openMetrics : plain)
            ?? MetricsCompiler.compile(server, plan, facts, openMetrics: wantsOpenMetrics)
        if wantsOpenMetrics { openMetrics = form } else { plain = form }
        // Of the plan that the form is for: another may be published meanwhile, with fewer endpoints.
        return form.render(Moment(facts: facts, usage: .read(), health: server.health(of: plan)))
    }
}

/// Says of every metric what it is called and where its value stands.
private struct MetricsCompiler {
    private let server: GatewayServer
    private let shared: SharedState
    private let facts: MetricsFacts
    private let workers: [WorkerMetrics]
    private let plan: ServingPlan
    /// With the numbers under which the workers count them.
    private let routes: [(name: String, number: Int)]
    private let tiers: [(name: String, number: Int)]
    private let text: Exposition

    static func compile(
        _ server: GatewayServer, _ plan: ServingPlan, _ facts: MetricsFacts, openMetrics: Bool
    ) -> Exposition {
        let compiler = MetricsCompiler(server, plan, facts, Exposition(openMetrics: openMetrics))
        compiler.requests()
        compiler.reasons()
        compiler.histograms()
        compiler.gate()
        compiler.store()
        compiler.connections()
        compiler.http2()
        compiler.logs()
        compiler.upstreams()
        compiler.configuration()
        compiler.process()
        compiler.text.finish()
        return compiler.text
    }

    private init(_ server: GatewayServer, _ plan: ServingPlan, _ facts: MetricsFacts, _ text: Exposition) {
        self.server = server
        self.plan = plan
        self.facts = facts
        self.text = text
        shared = server.shared
        workers = server.metrics
        routes = [("none", -1)] + plan.routeSeries
        tiers = plan.tierSeries
    }

    private func family(_ name: String, _ type: String, _ help: String) { text.family(name, type, help) }

    /// A sample that is the sum over all workers.
    private func sum(
        _ name: String, _ labels: [(String, String)], _ read: @escaping (WorkerMetrics) -> UInt64
    ) {
        text.sample(name, labels) { [workers] _ in .count(workers.reduce(0) { $0 &+ read($1) }) }
    }

    private func sum(_ name: String, _ labels: [(String, String)], _ scalar: WorkerMetrics.Scalar) {
        sum(name, labels) { $0.value(scalar) }
    }

    private func sum(_ name: String, _ scalar: WorkerMetrics.Scalar) { sum(name, [], scalar) }

    private func requests() {
        family("gateway_requests_total", "counter", "Answered requests.")
        text.requests(RequestLines(workers, routes: routes, tiers: [("none", -1)] + tiers))
    }

    private func reasons() {
        family("gateway_refusals_total", "counter", "Calls refused or failed, by the access log's reason.")
        for (number, reason) in WorkerMetrics.reasons.enumerated() {
            sum("gateway_refusals_total", [("reason", reason)]) { $0.reasonCount(number) }
        }
    }

    private func histogram(
        _ name: String, _ label: (String, String), _ cell: @escaping (WorkerMetrics, Int) -> UInt64
    ) {
        text.histogram(name, label) { [workers] number in
            workers.reduce(0) { $0 &+ cell($1, number) }
        }
    }

    private func histograms() {
        family(
            "gateway_request_duration_seconds", "histogram",
            "From the whole request head to the end of the answer.")
        for route in routes {
            histogram("gateway_request_duration_seconds", ("route", route.name)) { worker, cell in
                worker.routeDuration(route: route.number, cell: cell)
            }
        }
        family(
            "gateway_upstream_duration_seconds", "histogram",
            "From the choice of an endpoint to its last byte.")
        for (upstream, number, _) in plan.upstreamNumbers {
            histogram("gateway_upstream_duration_seconds", ("upstream", upstream.name)) { worker, cell in
                worker.upstreamDuration(upstream: number, cell: cell)
            }
        }
        family("gateway_store_duration_seconds", "histogram", "Time until the store answered.")
        for (number, command) in ["lookup", "take"].enumerated() {
            histogram("gateway_store_duration_seconds", ("command", command)) { worker, cell in
                worker.storeDuration(command: number, cell: cell)
            }
        }
    }

    private func gate() {
        family("gateway_auth_total", "counter", "Authentications by result.")
        for result in WorkerMetrics.Authentication.allCases {
            text.sample("gateway_auth_total", [("result", "\(result)")]) { [workers, shared] _ in
                let counted = workers.reduce(0) { $0 &+ $1.value(result) }
                return .count(result == .exposed ? counted &+ shared.exposedCount : counted)
            }
        }
        family("gateway_ratelimit_total", "counter", "Decisions of the limiter.")
        for tier in tiers {
            for decision in WorkerMetrics.LimitDecision.allCases {
                sum("gateway_ratelimit_total", [("tier", tier.name), ("decision", "\(decision)")]) {
                    $0.value(decision, tier: tier.number)
                }
            }
        }
        family(
            "gateway_ratelimit_near_total", "counter", "Calls let through with over 80 % of the limit used.")
        for tier in tiers {
            sum("gateway_ratelimit_near_total", [("tier", tier.name)]) {
                $0.nearLimitCount(tier: tier.number)
            }
        }
        family("gateway_plaintext_refused_total", "counter", "Plain HTTP requests refused.")
        sum("gateway_plaintext_refused_total", [("credential", "none")], .plaintextWithoutCredential)
        sum("gateway_plaintext_refused_total", [("credential", "present")], .plaintextWithCredential)
        family("gateway_key_cache_total", "counter", "Look-ups in the key cache.")
        for result in WorkerMetrics.CacheResult.allCases {
            sum("gateway_key_cache_total", [("result", "\(result)")]) { $0.value(result) }
        }
        family("gateway_key_record_problems_total", "counter", "Key records that could not be used.")
        sum("gateway_key_record_problems_total", .recordProblems)
    }

    private func store() {
        if plan.configuration.store.endpoint != .memory {
            family(
                "gateway_revocation_lag_seconds", "gauge",
                "Age of the last proof that changes of keys are heard: so late can a revocation be.")
            text.sample("gateway_revocation_lag_seconds") { [shared] _ in
                let heard = shared.changesHeardMicroseconds
                return heard == 0 ? .infinity : .microseconds(MonotonicClock.nowMicroseconds() - heard)
            }
            family(
                "gateway_store_generations_total", "counter",
                "Failovers and restarts of the store that may have lost its latest writes.")
            text.sample("gateway_store_generations_total") { [shared] _ in
                .count(UInt64(clamping: shared.storeGeneration))
            }
            family(
                "gateway_store_nodes", "gauge",
                "Gateways that share the store, as counted last: each has a like share of every limit."
            )
            text.sample("gateway_store_nodes") { [shared] _ in .count(UInt64(clamping: shared.liveNodes)) }
        }
        family(
            "gateway_keys_due_for_rotation", "gauge",
            "Usable keys that were made 90 days ago or have not been used for 90 days.")
        text.sample("gateway_keys_due_for_rotation") { [shared] _ in
            shared.keysDueForRotation.map { .count(UInt64(clamping: $0)) } ?? .nothing
        }
        family("gateway_store_up", "gauge", "Whether every worker reaches the store.")
        text.sample("gateway_store_up") { [server] _ in .count(server.isStoreUp ? 1 : 0) }
    }

    private func connections() {
        family("gateway_connections", "gauge", "Callers' connections.")
        sum("gateway_connections", [("state", "active")], .connectionsActive)
        sum("gateway_connections", [("state", "idle")], .connectionsIdle)
        family("gateway_connections_accepted_total", "counter", "Connections accepted.")
        sum("gateway_connections_accepted_total", .connectionsAccepted)
        family("gateway_connections_refused_total", "counter", "Connections closed for want of room.")
        sum("gateway_connections_refused_total", .connectionsRefused)
        family("gateway_tls_handshakes_total", "counter", "Completed TLS handshakes.")
        let handshakes: [(String, String, WorkerMetrics.Scalar)] = [
            ("1.2", "false", .handshakesTLS12Full), ("1.2", "true", .handshakesTLS12Resumed),
            ("1.3", "false", .handshakesTLS13Full), ("1.3", "true", .handshakesTLS13Resumed),
        ]
        for (version, resumed, scalar) in handshakes {
            sum("gateway_tls_handshakes_total", [("version", version), ("resumed", resumed)], scalar)
        }
        family(
            "gateway_tls_handshakes_evicted_total", "counter", "Handshakes closed to make room for others.")
        sum("gateway_tls_handshakes_evicted_total", .handshakesEvicted)
        family("gateway_idle_closed_total", "counter", "Idle connections closed to save memory.")
        sum("gateway_idle_closed_total", .idleClosedForMemory)
        family("gateway_tls_handshake_failures_total", "counter", "TLS handshakes that failed.")
        sum("gateway_tls_handshake_failures_total", .handshakesFailed)
        family(
            "gateway_tls_certificate_expiry_timestamp_seconds", "gauge",
            "When a subject's first certificate ends, Unix seconds.")
        // One of RSA and one of ECDSA may be for the same names, and no two series may have the same ones.
        for subject in Set(facts.certificates.map(\.subject)).sorted() {
            text.sample("gateway_tls_certificate_expiry_timestamp_seconds", [("subject", subject)]) {
                let ends = $0.facts.certificates.filter { $0.subject == subject }.map(\.notAfter)
                return ends.min().map { .count(UInt64(clamping: $0)) } ?? .nothing
            }
        }
        family("gateway_received_bytes_total", "counter", "Decrypted bytes from callers.")
        sum("gateway_received_bytes_total", .bytesFromDownstream)
        family("gateway_sent_bytes_total", "counter", "Bytes to callers before encryption.")
        sum("gateway_sent_bytes_total", .bytesToDownstream)
    }

    private func http2() {
        family("gateway_http2_streams_total", "counter", "HTTP/2 streams that callers have opened.")
        sum("gateway_http2_streams_total", .streamsOpened)
        family("gateway_http2_streams_refused_total", "counter", "HTTP/2 streams refused, by reason.")
        sum("gateway_http2_streams_refused_total", [("reason", "malformed")], .streamsMalformed)
        sum("gateway_http2_streams_refused_total", [("reason", "no_room")], .streamsRefused)
        family(
            "gateway_http2_floods_total", "counter",
            "HTTP/2 connections ended because they sent frames without end and without a call.")
        sum("gateway_http2_floods_total", .floodsEnded)
    }

    private func logs() {
        family("gateway_spans_exported_total", "counter", "Spans that the collector has taken.")
        text.sample("gateway_spans_exported_total") { [shared] _ in .count(shared.sentSpanCount) }
        family("gateway_spans_dropped_total", "counter", "Spans given up: the collector is away or too slow.")
        text.sample("gateway_spans_dropped_total") { [workers, shared] _ in
            .count(workers.reduce(shared.lostSpanCount) { $0 &+ $1.value(.spansDropped) })
        }
        family(
            "gateway_access_log_dropped_total", "counter",
            "Access-log lines that could not be written in time, or at all.")
        text.sample("gateway_access_log_dropped_total") { [workers, shared] _ in
            .count(workers.reduce(shared.lostLineCount) { $0 &+ $1.value(.accessLogDropped) })
        }
    }

    private func upstreams() {
        family("gateway_upstream_healthy", "gauge", "Whether active checks let calls go to an endpoint.")
        let endpoints = plan.configuration.upstreams.flatMap { upstream in
            upstream.endpoints.map { [("upstream", upstream.name), ("endpoint", $0.text)] }
        }
        for (index, labels) in endpoints.enumerated() {
            text.sample("gateway_upstream_healthy", labels) { .count($0.health[index] ? 1 : 0) }
        }
        family("gateway_upstream_connections", "gauge", "Open connections to upstreams.")
        sum("gateway_upstream_connections", .upstreamConnectionsOpen)
        family("gateway_upstream_connects_total", "counter", "Connections opened to upstreams.")
        sum("gateway_upstream_connects_total", .upstreamConnects)
        family("gateway_upstream_connect_failures_total", "counter", "Connections that could not be opened.")
        sum("gateway_upstream_connect_failures_total", .upstreamConnectFailures)
        family("gateway_upstream_retries_total", "counter", "Calls sent a second time.")
        sum("gateway_upstream_retries_total", .upstreamRetries)
        family("gateway_upstream_queued_total", "counter", "Calls that waited for a connection to be free.")
        sum("gateway_upstream_queued_total", .upstreamQueued)
        family("gateway_upstream_overflows_total", "counter", "Calls refused because an endpoint was full.")
        sum("gateway_upstream_overflows_total", .upstreamQueueOverflows)
    }

    private func configuration() {
        family(
            "gateway_config_reload_success", "gauge",
            "Whether the last reload of the configuration took effect.")
        text.sample("gateway_config_reload_success") { .count($0.facts.reloads.lastSucceeded ? 1 : 0) }
        family("gateway_config_reloads_total", "counter", "Reloads of the configuration.")
        text.sample("gateway_config_reloads_total", [("result", "accepted")]) {
            .count($0.facts.reloads.accepted)
        }
        text.sample("gateway_config_reloads_total", [("result", "refused")]) {
            .count($0.facts.reloads.refused)
        }
        family(
            "gateway_config_last_accepted_timestamp_seconds", "gauge",
            "When the configuration in use was read, Unix seconds.")
        text.sample("gateway_config_last_accepted_timestamp_seconds") {
            .count(UInt64(clamping: $0.facts.reloads.acceptedSeconds))
        }
        family(
            "gateway_config_generation", "gauge", "The configuration that every worker has gone over to.")
        text.sample("gateway_config_generation") { [workers] _ in
            .count(workers.map { $0.value(.generation) }.min() ?? 0)
        }
        family("gateway_build_info", "gauge", "The running program.")
        text.sample("gateway_build_info", [("version", facts.version)]) { _ in .count(1) }
    }

    private func process() {
        family("process_start_time_seconds", "gauge", "Start of the process, Unix seconds.")
        text.sample("process_start_time_seconds") { [server] _ in
            .count(UInt64(clamping: server.startedWallSeconds))
        }
        family("process_cpu_seconds_total", "counter", "CPU time of the process.")
        text.sample("process_cpu_seconds_total") { .microseconds($0.usage.cpuMicroseconds) }
        family("process_resident_memory_bytes", "gauge", "Resident memory.")
        text.sample("process_resident_memory_bytes") { .count(UInt64(clamping: $0.usage.residentBytes)) }
        family("process_open_fds", "gauge", "Open file descriptors.")
        text.sample("process_open_fds") { .count(UInt64(clamping: $0.usage.openDescriptors)) }
        family("process_max_fds", "gauge", "Allowed file descriptors.")
        text.sample("process_max_fds") { .count(UInt64(clamping: $0.usage.descriptorLimit)) }
    }
}
