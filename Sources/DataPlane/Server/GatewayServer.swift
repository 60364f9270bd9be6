package import Configuration
package import Keys
package import Reactor
package import Redis
import Synchronization
package import TLS

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

    package let shared: SharedState
    /// What the workers serve, or are about to.
    private let planCell: Mutex<ServingPlan>
    /// Numbers given to names so far; touched by whoever reloads, the control thread.
    var numbers: PlanNumbers
    /// The latest configuration that was taken, with what it keeps of the one before: the workers serve it,
    /// or will once its names are looked up. The control thread's alone.
    package internal(set) var accepted: GatewayConfiguration
    /// Keys that live in memory, beside those that a configuration declares; the control thread's.
    var memoryKeys: [KeyRecord] = []
    /// What the TLS contexts in use were made of.
    var serverTrust: String
    var upstreamTrust: UpstreamTrust
    /// What the workers' trust in the store was made of, for as long as the process lives.
    let storeTrust: String?
    var generation: UInt32 = 1
    package let startedWallSeconds = WallClock.nowSeconds()
    private let phaseValue = Atomic<Int>(Phase.starting.rawValue)
    private(set) var workers: [Worker] = []
    private var threads: [ThreadHandle] = []
    let stop: Wakeup
    private let runningWorkers = Atomic<Int>(0)
    /// What `takeSignsOfLife` saw when it was last true; its caller's alone.
    private lazy var lastTurns = workers.map { _ in UInt64.max }
    /// By endpoint number.
    let endpointHealth: Mutex<[Bool]>
    let resolver: Resolver
    /// Sockets that another process has opened, until somebody asks for their address.
    package var inherited: InheritedSockets
    /// The sockets that the workers listen on.
    var sockets = Listeners()
    /// The port that was bound, also when the configuration asked for port 0.
    package internal(set) var httpsAddress = SocketAddress.unspecified
    package internal(set) var plaintextAddress: SocketAddress?

    /// Reads certificates and binds the sockets.
    ///
    /// - Parameters:
    ///   - inherited: sockets that are served instead where the configuration names their addresses.
    ///   - tickets: what session tickets are sealed with.
    /// - Throws: `ServerProblem`.
    package init(
        _ configuration: GatewayConfiguration, inherited: InheritedSockets = InheritedSockets(),
        tickets: TicketKeys = TicketKeys()
    ) throws(ServerProblem) {
        self.inherited = inherited
        numbers = PlanNumbers(for: configuration)
        guard let assigned = numbers.assign(configuration) else {
            preconditionFailure("there is room for the names that the room was measured by")
        }
        accepted = configuration
        let plan = ServingPlan(configuration, assigned, generation: generation)
        planCell = Mutex(plan)
        serverTrust = configuration.listen.trust
        upstreamTrust = UpstreamTrust(plan)
        storeTrust = configuration.store.caPath.map(FileContents.digest)
        endpointHealth = Mutex(Array(repeating: true, count: numbers.endpoints.capacity))
        do {
            shared = try SharedState(configuration, tickets)
            stop = try Wakeup()
            resolver = try Resolver()
        } catch {
            throw ServerProblem("the system refuses an event descriptor: \(error.reason)")
        }
        shared.names = LogNames(numbers)
        try checkDescriptors()
        try makeWorkers()
    }

    package internal(set) var plan: ServingPlan {
        get { planCell.withLock { $0 } }
        set { planCell.withLock { $0 = newValue } }
    }

    package var phase: Phase { Phase(rawValue: phaseValue.load(ordering: .relaxed)) ?? .stopped }

    /// Counters of every worker.
    package var metrics: [WorkerMetrics] { workers.map(\.metrics) }

    /// Whether each endpoint of a plan is in use, in the order of its configuration.
    package func health(of plan: ServingPlan) -> [Bool] {
        endpointHealth.withLock { health in plan.numbers.endpoints.numbers.map { health[$0] } }
    }

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
        let plan = plan
        let count = plan.configuration.workers
        let listen = plan.configuration.listen
        if inherited.isEmpty {
            try checkIsFree(listen.httpsAddress)
            if let plaintext = listen.plaintext { try checkIsFree(plaintext.address) }
        }
        let https = try bindAll(listen.httpsAddress, count: count, named: .https)
        let plaintext = try listen.plaintext.map { listen throws(ServerProblem) in
            try bindAll(listen.address, count: count, named: .plaintext)
        }
        noteSockets(https: https, plaintext: plaintext)
        for number in 0..<count {
            let listeners = Listeners(https: https[number], plaintext: plaintext?[number] ?? [])
            do {
                workers.append(
                    try Worker(
                        number: number, plan: plan, sizes: numbers, shared: shared, listeners: listeners))
            } catch let error as TLSError {
                throw ServerProblem(error.message)
            } catch {
                throw ServerProblem("\(error)")
            }
        }
    }

    /// Starts the threads. Names of upstreams are resolved first, so that the first call finds an address.
    package func start() throws(ServerProblem) {
        resolver.resolveAll(self)
        do {
            for (number, worker) in workers.enumerated() {
                runningWorkers.add(1, ordering: .relaxed)
                threads.append(
                    try Thread.start(name: "worker-\(number)") { [self] in
                        workers[number].run()
                        workers[number].hasEnded.store(true, ordering: .relaxed)
                        runningWorkers.subtract(1, ordering: .releasing)
                    })
                _ = worker
            }
            threads.append(try Thread.start(name: "resolver") { [self] in resolver.run(self) })
        } catch {
            throw ServerProblem("the system refuses a thread: \(error.reason)")
        }
        phaseValue.store(Phase.serving.rawValue, ordering: .relaxed)
    }

    /// Tells every worker something.
    func tellAll(_ message: WorkerMessage) {
        for worker in workers { worker.mailbox.post(message) }
    }

    /// Tells every worker that a key's record has changed.
    package func invalidate(_ digest: Digest256) {
        for worker in workers { worker.mailbox.post(.invalidate(digest)) }
    }

    /// Tells every worker that any record may have changed unseen.
    package func invalidateAll() {
        for worker in workers { worker.mailbox.post(.invalidateAll) }
    }

    /// Tells every worker that permits of an account are wanted back.
    package func recall(account: String) {
        let hash = shared.hash(account: account)
        for worker in workers { worker.mailbox.post(.recall(hash)) }
    }

    /// Has the workers follow the masters that a sentinel or a cluster has named.
    package func follow(_ topology: StoreTopology) {
        shared.storeTopology = topology
        for worker in workers { worker.mailbox.post(.storeTopology(topology)) }
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

    /// Another process serves the sockets: they are let go, and callers who wait at them are its own.
    package func releaseListeners() {
        for worker in workers { worker.mailbox.post(.releaseListeners) }
    }

    /// Tells every worker how the process's memory stands.
    package func setPressure(_ pressure: MemoryPressure) { tellAll(.pressure(pressure)) }

    /// Whether every worker has made a turn since this was last so; one that has ended owes none.
    package func takeSignsOfLife() -> Bool {
        let turns = workers.map { $0.metrics.value(.turns) }
        let isAlive = workers.indices.allSatisfy {
            workers[$0].hasEnded.load(ordering: .relaxed) || turns[$0] != lastTurns[$0]
        }
        // Kept otherwise: whoever asks often would hardly ever see a turn of all since it last asked.
        if isAlive { lastTurns = turns }
        return isAlive
    }

    /// Ends what is left.
    ///
    /// - Parameter isHurried: whether workers do not even give their leases back.
    package func stopNow(isHurried: Bool) { tellAll(.stop(isHurried: isHurried)) }

    /// Waits for all threads.
    package func join() {
        phaseValue.store(Phase.stopped.rawValue, ordering: .relaxed)
        stop.signal()
        for thread in threads { thread.join() }
        threads = []
    }
}
