import Configuration
import Reactor
import Synchronization
import TLS

// Looking up a name may take seconds. One thread does it for all: regularly for the endpoints in use, and for
// the new ones of a reload before the workers go over to it. It also keeps the health checks in step with the
// configuration, as the only one who starts and ends them.

/// Where names lead, and who checks the endpoints behind them.
final class Resolver: Sendable {
    /// A reload that waits for its names.
    struct Pending: Sendable {
        var plan: ServingPlan
        /// One for each worker.
        var adoptions: [Adoption]
        /// Whether it may have new names: they are looked up first, which may take seconds.
        var hasNames = true
    }

    private static let intervalMicroseconds: Int64 = 10_000_000

    /// Touched by the thread that starts the server, then by the resolver's own.
    private struct State: Sendable {
        /// What each endpoint's name stood for last, by number.
        var resolved: [Int: NameRecord] = [:]
        var checks: [HealthCheck] = []
    }

    private let pending: Mailbox<Pending>
    private let state = Mutex(State())

    init() throws(SystemError) { pending = try Mailbox() }

    /// Hands over a reload.
    func adopt(_ reload: Pending) { pending.post(reload) }

    func run(_ server: GatewayServer) {
        state.withLock { updateChecks(&$0, server) }
        var isDueAt = MonotonicClock.nowMicroseconds() + Self.intervalMicroseconds
        while true {
            let wait = (isDueAt - MonotonicClock.nowMicroseconds()) / 1_000
            Readiness.wait(
                pending.wakeup.descriptor, server.stop.descriptor, timeoutMilliseconds: Int(max(0, wait)))
            guard !Self.isSignalled(server.stop) else { break }
            for reload in pending.takeAll() { publish(reload, server) }
            guard MonotonicClock.nowMicroseconds() >= isDueAt else { continue }
            resolveAll(server)
            isDueAt = MonotonicClock.nowMicroseconds() + Self.intervalMicroseconds
        }
        state.withLock { state in
            for check in state.checks { check.end() }
            for check in state.checks { check.join() }
        }
    }

    private static func isSignalled(_ wakeup: Wakeup) -> Bool {
        Readiness.pause(milliseconds: 0, unless: wakeup)
    }

    /// Looks up the names of all endpoints and tells the workers what has changed.
    func resolveAll(_ server: GatewayServer) {
        let plan = server.plan
        if case .redis(let host, let port, _) = plan.configuration.store.endpoint {
            let found = NameResolver.resolve(host: host, port: UInt16(clamping: port))
            if !found.isEmpty { server.shared.storeAddresses = found }
        }
        state.withLock { state in
            for (number, addresses, retired) in lookUp(plan, &state, server, onlyUnknown: false) {
                server.tellAll(.resolved(endpoint: number, addresses, retired: retired))
            }
        }
    }

    /// The endpoints whose names lead elsewhere than when last looked up.
    private func lookUp(
        _ plan: ServingPlan, _ state: inout State, _ server: GatewayServer, onlyUnknown: Bool
    ) -> [(endpoint: Int, addresses: [SocketAddress], retired: [SocketAddress])] {
        var changed: [(endpoint: Int, addresses: [SocketAddress], retired: [SocketAddress])] = []
        for (upstream, _, members) in plan.upstreamNumbers {
            for (endpoint, number) in zip(upstream.endpoints, members) {
                // A name may take half a minute. At the end nobody needs one; a reload needs its own first,
                // and those that are only looked up again have their turn after it.
                if Self.isSignalled(server.stop) { return changed }
                if !onlyUnknown, Self.isSignalled(pending.wakeup) { return changed }
                guard case .tcp(let host, let port, _) = endpoint.transport,
                    SocketAddress(ip: host, port: 0) == nil,
                    !onlyUnknown || state.resolved[number] == nil
                else { continue }
                let found = NameResolver.resolve(host: host, port: UInt16(port))
                guard !found.isEmpty else {
                    server.shared.report(
                        .warning, "upstream \(upstream.name): the name \(host) cannot be resolved", every: 60)
                    continue
                }
                let (isChanged, retired) = state.resolved[number, default: NameRecord()].take(found)
                guard isChanged, let addresses = state.resolved[number]?.addresses else { continue }
                changed.append((number, addresses, retired))
            }
        }
        return changed
    }

    /// The one step in which a reload takes effect.
    private func publish(_ reload: Pending, _ server: GatewayServer) {
        state.withLock { state in
            let kept = Set(reload.plan.numbers.endpoints.numbers)
            let fresh = reload.plan.numbers.endpoints.fresh
            state.resolved = state.resolved.filter { kept.contains($0.key) && !fresh.contains($0.key) }
            let found = reload.hasNames ? lookUp(reload.plan, &state, server, onlyUnknown: true) : []
            for adoption in reload.adoptions {
                adoption.addresses = found.map { ($0.endpoint, $0.addresses) }
            }
            server.endpointHealth.withLock { health in
                for number in health.indices where fresh.contains(number) || !kept.contains(number) {
                    health[number] = true
                }
            }
            server.plan = reload.plan
            for (worker, adoption) in zip(server.workers, reload.adoptions) {
                worker.mailbox.post(.adopt(adoption))
            }
            updateChecks(&state, server)
        }
        server.shared.report(.info, "configuration \(reload.plan.generation) is in use", every: 0)
    }

    /// Ends the checks of upstreams that have changed or gone, and starts those that are missing.
    private func updateChecks(_ state: inout State, _ server: GatewayServer) {
        var missing: [HealthCheck.Subject] = server.plan.upstreamNumbers.compactMap { upstream, _, members in
            upstream.health.map {
                HealthCheck.Subject(
                    name: upstream.name, endpoints: upstream.endpoints, numbers: members,
                    caPath: upstream.caPath, usesHTTP2: upstream.usesHTTP2, health: $0)
            }
        }
        for (upstream, _, members) in server.plan.upstreamNumbers where upstream.health == nil {
            // Nobody would ever let an endpoint in again that a former check has left out.
            for number in members where !server.endpointHealth.withLock({ $0[number] }) {
                server.endpointHealth.withLock { $0[number] = true }
                server.tellAll(.health(endpoint: number, isHealthy: true))
            }
        }
        for check in state.checks {
            if let index = missing.firstIndex(of: check.subject), !check.isEnding {
                missing.remove(at: index)
            } else {
                check.end()
            }
        }
        // A thread that waits for an answer ends soon; it is joined when it has.
        state.checks.removeAll { check in
            guard check.hasEnded else { return false }
            check.join()
            return true
        }
        for subject in missing {
            do {
                state.checks.append(
                    try HealthCheck(
                        subject,
                        isHealthy: { [server] place in
                            server.endpointHealth.withLock { $0[subject.numbers[place]] }
                        },
                        report: { [server] place, isHealthy, why in
                            server.noteHealth(place, isHealthy, subject, why)
                        }))
            } catch {
                server.shared.report(
                    .error, "upstream \(subject.name) is not checked: \(error.reason)", every: 60)
            }
        }
    }
}

extension GatewayServer {
    fileprivate func noteHealth(
        _ place: Int, _ isHealthy: Bool, _ subject: HealthCheck.Subject, _ why: String
    ) {
        let number = subject.numbers[place]
        endpointHealth.withLock { $0[number] = isHealthy }
        tellAll(.health(endpoint: number, isHealthy: isHealthy))
        let name = "\(subject.name) \(subject.endpoints[place].text)"
        shared.report(
            isHealthy ? .info : .warning, "upstream \(name) is \(isHealthy ? "back" : "out"): \(why)",
            every: 1)
    }
}
