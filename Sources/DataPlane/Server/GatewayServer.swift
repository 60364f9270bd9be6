package import Configuration
package import Keys
package import Reactor
import Synchronization
import TLS

// The composition of a running gateway: sockets, workers, and the threads beside them that may wait.

/// Why a gateway cannot start: one sentence that says what to do.
package struct ServerProblem: Error, Sendable {
    package let text: String
    package init(_ text: String) { self.text = text }
}

/// A set of workers on one configuration, with the threads that serve them.
package final class GatewayServer: @unchecked Sendable {
    // `@unchecked`: what changes after `start` is atomic or behind a lock.
    package enum Phase: Int, Sendable { case starting, serving, draining, stopped }

    package let plan: ServingPlan
    package let shared: SharedState
    package let startedWallSeconds = WallClock.nowSeconds()
    private let phaseValue = Atomic<Int>(Phase.starting.rawValue)
    private var workers: [Worker] = []
    private var threads: [ThreadHandle] = []
    private let stop: Wakeup
    private let runningWorkers = Atomic<Int>(0)
    private let endpointHealth: Mutex<[Bool]>
    /// The port that was bound, also when the configuration asked for port 0.
    package private(set) var httpsAddress = SocketAddress.unspecified
    package private(set) var plaintextAddress: SocketAddress?

    /// Reads certificates and binds the sockets.
    ///
    /// - Throws: `ServerProblem`.
    package init(_ configuration: GatewayConfiguration) throws(ServerProblem) {
        plan = ServingPlan(configuration)
        let endpoints = configuration.upstreams.reduce(0) { $0 + $1.endpoints.count }
        endpointHealth = Mutex(Array(repeating: true, count: endpoints))
        do {
            shared = try SharedState(configuration)
            stop = try Wakeup()
        } catch {
            throw ServerProblem("the system refuses an event descriptor: \(error.reason)")
        }
        try checkDescriptors()
        try makeWorkers()
    }

    package var phase: Phase { Phase(rawValue: phaseValue.load(ordering: .relaxed)) ?? .stopped }

    /// Counters of every worker.
    package var metrics: [WorkerMetrics] { workers.map(\.metrics) }

    /// Whether each endpoint is in use, in the order of the configuration.
    package var health: [Bool] { endpointHealth.withLock { $0 } }

    /// Whether every worker reaches the store; true without one.
    package var isStoreUp: Bool {
        plan.configuration.store.endpoint == .memory || workers.allSatisfy { $0.metrics.value(.storeUp) == 1 }
    }

    /// Whether workers are still running.
    package var isRunning: Bool { runningWorkers.load(ordering: .acquiring) > 0 }

    /// A caller's connection and its upstream's need two descriptors.
    private func checkDescriptors() throws(ServerProblem) {
        let wanted = plan.configuration.limits.connections * 2 + 256
        let granted = ProcessLimits.raiseDescriptorLimit(to: wanted)
        if granted < 256 {
            throw ServerProblem(
                "only \(granted) open files are allowed: raise the limit (ulimit -n, LimitNOFILE)")
        }
        if granted < wanted {
            shared.report(
                .warning,
                "\(granted) open files are allowed, \(wanted) are needed for "
                    + "\(plan.configuration.limits.connections) connections: raise the limit "
                    + "(ulimit -n, LimitNOFILE) or lower limits.connections",
                every: 3_600)
        }
    }

    private func makeWorkers() throws(ServerProblem) {
        let listen = plan.configuration.listen
        var https = try address(listen.httpsAddress)
        var plaintext: SocketAddress?
        if let text = listen.plaintext?.address { plaintext = try address(text) }
        for number in 0..<plan.configuration.workers {
            let listener = try bind(https)
            // Port 0 is chosen once; the other workers share it.
            if let bound = Socket.localAddress(listener) { https.port = bound.port }
            var plaintextListener = Descriptor.none
            if let wanted = plaintext {
                plaintextListener = try bind(wanted)
                if let bound = Socket.localAddress(plaintextListener) { plaintext?.port = bound.port }
            }
            do {
                workers.append(
                    try Worker(
                        number: number, plan: plan, shared: shared, listener: listener,
                        plaintextListener: plaintextListener))
            } catch let error as TLSError {
                throw ServerProblem(error.message)
            } catch {
                throw ServerProblem("\(error)")
            }
        }
        httpsAddress = https
        plaintextAddress = plaintext
    }

    private func address(_ text: String) throws(ServerProblem) -> SocketAddress {
        guard let address = SocketAddress.parse(text) else {
            throw ServerProblem("\"\(text)\" is not an address like 0.0.0.0:8443 or [::]:8443")
        }
        return address
    }

    private func bind(_ address: SocketAddress) throws(ServerProblem) -> Descriptor {
        do {
            return try Socket.listen(on: address, reusePort: true)
        } catch {
            throw ServerProblem(Socket.bindSentence(error, address: "\(address)"))
        }
    }

    /// Starts the threads. Names of upstreams are resolved first, so that the first call finds an address.
    package func start() throws(ServerProblem) {
        resolveAll()
        do {
            for (number, worker) in workers.enumerated() {
                runningWorkers.add(1, ordering: .relaxed)
                threads.append(
                    try Thread.start(name: "worker-\(number)") { [self] in
                        workers[number].run()
                        runningWorkers.subtract(1, ordering: .releasing)
                    })
                _ = worker
            }
            threads.append(
                try Thread.start(name: "resolver") { [self] in
                    while !Readiness.pause(milliseconds: 10_000, unless: stop) { resolveAll() }
                })
            try startHealthChecks()
        } catch {
            throw ServerProblem("the system refuses a thread: \(error.reason)")
        }
        phaseValue.store(Phase.serving.rawValue, ordering: .relaxed)
    }

    private func startHealthChecks() throws(SystemError) {
        var first = 0
        for upstream in plan.configuration.upstreams {
            let firstEndpoint = first
            first += upstream.endpoints.count
            guard let health = upstream.health else { continue }
            threads.append(
                try Thread.start(name: "health") { [self] in
                    let checker = HealthChecker(upstream, health, firstEndpoint: firstEndpoint) {
                        [self] endpoint, isHealthy, why in
                        noteHealth(endpoint, isHealthy, upstream, firstEndpoint, why)
                    }
                    checker.run(until: stop)
                })
        }
    }

    private func noteHealth(
        _ endpoint: Int, _ isHealthy: Bool, _ upstream: UpstreamConfiguration, _ first: Int, _ why: String
    ) {
        endpointHealth.withLock { $0[endpoint] = isHealthy }
        for worker in workers { worker.mailbox.post(.health(endpoint: endpoint, isHealthy: isHealthy)) }
        let name = "\(upstream.name) \(upstream.endpoints[endpoint - first].text)"
        shared.report(
            isHealthy ? .info : .warning, "upstream \(name) is \(isHealthy ? "back" : "out"): \(why)",
            every: 1)
    }

    /// Looks up the names of all endpoints and tells the workers what has changed.
    private func resolveAll() {
        if case .redis(let host, let port, _) = plan.configuration.store.endpoint {
            let found = NameResolver.resolve(host: host, port: UInt16(clamping: port))
            if let address = found.first, shared.storeAddress.map({ !found.contains($0) }) ?? true {
                shared.storeAddress = address
            }
        }
        var number = 0
        for upstream in plan.configuration.upstreams {
            for endpoint in upstream.endpoints {
                defer { number += 1 }
                guard case .tcp(let host, let port, _) = endpoint.transport,
                    SocketAddress(ip: host, port: 0) == nil
                else { continue }
                let found = NameResolver.resolve(host: host, port: UInt16(port))
                guard let address = found.first else {
                    shared.report(
                        .warning, "upstream \(upstream.name): the name \(host) cannot be resolved", every: 60)
                    continue
                }
                if resolved[number].map({ found.contains($0) }) == true { continue }
                resolved[number] = address
                for worker in workers {
                    worker.mailbox.post(.resolved(endpoint: number, address))
                }
            }
        }
    }

    /// What each name stood for last; used by the resolver alone once it runs.
    private var resolved: [Int: SocketAddress] = [:]

    /// Tells every worker that a key's record has changed.
    package func invalidate(_ digest: Digest256) {
        for worker in workers { worker.mailbox.post(.invalidate(digest)) }
    }

    /// Tells every worker that any record may have changed unseen.
    package func invalidateAll() {
        for worker in workers { worker.mailbox.post(.invalidateAll) }
    }

    // MARK: End

    /// Answers from now on say `Connection: close`; readiness fails.
    package func beginDrain() {
        phaseValue.store(Phase.draining.rawValue, ordering: .relaxed)
        for worker in workers { worker.mailbox.post(.drain) }
    }

    /// No new connections; workers end when their last call has.
    package func closeListeners() {
        for worker in workers { worker.mailbox.post(.closeListeners) }
    }

    /// Ends what is left.
    package func stopNow() {
        for worker in workers { worker.mailbox.post(.stop) }
    }

    /// Waits for all threads.
    package func join() {
        phaseValue.store(Phase.stopped.rawValue, ordering: .relaxed)
        stop.signal()
        for thread in threads { thread.join() }
        threads = []
    }
}
