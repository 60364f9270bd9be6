import Configuration
package import DataPlane
package import Reactor

/// The admin listener: plain HTTP on an address that only operators reach, served by the control loop, so
/// that a scrape or a slow client cannot touch a worker. Serves `/livez`, `/readyz` and `/metrics`.
package final class AdminServer {
    /// Tokens from here on are this server's; the control loop gives lower ones to others.
    package static let firstToken: UInt64 = 1_000
    /// Scrapers, probes and a few people.
    private static let connectionsMax = 128

    private let small: SmallServer

    /// Binds the address and joins the control loop.
    ///
    /// - Throws: `ServerProblem`.
    package init(
        address: String, server: GatewayServer, poller: Poller, facts: @escaping () -> MetricsFacts
    ) throws(ServerProblem) {
        let inherited = SocketAddress.parse(address).flatMap {
            server.inherited.take($0, named: ListenerName.admin.rawValue).first
        }
        small = try SmallServer(
            address: address, inherited: inherited, poller: poller, firstToken: Self.firstToken,
            connectionsMax: Self.connectionsMax
        ) { request in
            var answer = Self.answer(request, server, facts)
            answer.fields.append(("Cache-Control", "no-store"))
            return answer
        }
    }

    package var address: SocketAddress { small.address }

    /// The socket with its name, for a process that takes over.
    package var namedSocket: (name: String, descriptor: Descriptor) {
        (ListenerName.admin.rawValue, small.socket)
    }

    /// Leaves new clients to the process that has taken over.
    package func stopListening() { small.stopListening() }

    package func handle(_ event: Event, nowMicroseconds: Int64) {
        small.handle(event, nowMicroseconds: nowMicroseconds)
    }

    package func tick(nowMicroseconds: Int64) { small.tick(nowMicroseconds: nowMicroseconds) }

    private static func answer(
        _ request: SmallRequest, _ server: GatewayServer, _ facts: () -> MetricsFacts
    ) -> SmallAnswer {
        guard ["/livez", "/readyz", "/metrics"].contains(request.path) else {
            return SmallAnswer(404, "text/plain", "No such resource.\n")
        }
        guard request.method == "GET" || request.method == "HEAD" else {
            return SmallAnswer(405, "text/plain", "This resource is read with GET.\n")
        }
        switch request.path {
        case "/livez": return SmallAnswer(200, "text/plain", "ok\n")
        case "/readyz": return readiness(server)
        default:
            let wantsOpenMetrics = request.field("accept")?.contains("application/openmetrics-text") ?? false
            return SmallAnswer(
                200,
                wantsOpenMetrics
                    ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                    : "text/plain; version=0.0.4; charset=utf-8",
                MetricsText.render(server, facts(), openMetrics: wantsOpenMetrics))
        }
    }

    /// 503 while starting and draining; a store that is away is only a warning while a degraded mode serves.
    private static func readiness(_ server: GatewayServer) -> SmallAnswer {
        switch server.phase {
        case .starting: return SmallAnswer(503, "application/json", "{\"status\":\"starting\"}\n")
        case .draining, .stopped: return SmallAnswer(503, "application/json", "{\"status\":\"draining\"}\n")
        case .serving:
            if server.isStoreUp { return SmallAnswer(200, "application/json", "{\"status\":\"ok\"}\n") }
            let isClosed = server.plan.configuration.store.onOutage == .closed
            return SmallAnswer(
                isClosed ? 503 : 200, "application/json",
                "{\"status\":\"\(isClosed ? "unavailable" : "warn")\",\"store\":\"unreachable\"}\n")
        }
    }
}
