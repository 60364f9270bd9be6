import Admin
import Configuration
import DataPlane
import Reactor
import TLS

/// A running gateway: the server, the admin listener, the log thread, and the control loop that watches
/// signals.
final class Service {
    private enum Tokens {
        static let signals: UInt64 = 1
        static let successor: UInt64 = 2
    }

    /// A program that is taking over.
    private struct Upgrade {
        var processIdentifier: Int32
        var ready: Descriptor
        var deadline: Int64
    }

    private static let weighMicroseconds: Int64 = 1_000_000
    /// How long a program that takes over may need until it serves; it has to reach nothing but files.
    private static let upgradeMicroseconds: Int64 = 60_000_000
    /// What workers may take once somebody has asked for the end at once.
    private static let hurryMicroseconds: Int64 = 1_000_000

    let server: GatewayServer
    private let poller: Poller
    private let signals: Descriptor
    private var admin: AdminServer?
    private let logWriter: LogWriter
    private let exporter: SpanExporter
    private let store: StoreThread
    private let reloader: Reloader
    private let manager: ServiceManager
    private let environment: [String: String]
    private var upgrade: Upgrade?
    private var isDraining = false
    /// Whether a second signal has asked for the end at once.
    private var isHurried = false
    private var closesListenersAt = Int64.max
    private var stopsAt = Int64.max
    /// When workers that have not stopped are no longer waited for.
    private var leavesAt = Int64.max
    private var pingsAt: Int64 = 0
    private var weighsAt: Int64 = 0
    private var pressure = MemoryPressure.none

    /// Binds everything.
    ///
    /// - Parameters:
    ///   - source: reads the configuration again; nil where there is no file to read.
    ///   - taken: what `takeSignals` has returned, where other threads had to be started first.
    /// - Throws: `ServerProblem`.
    init(
        _ configuration: GatewayConfiguration, source: Reloader.Source? = nil,
        signals taken: Descriptor? = nil
    ) throws(ServerProblem) {
        environment = Environment.all()
        manager = ServiceManager(environment: environment)
        signals = if let taken { taken } else { try Self.takeSignals() }
        do {
            poller = try Poller()
            try poller.add(signals, token: Tokens.signals, .read)
        } catch {
            throw ServerProblem("the system refuses an event descriptor: \(error.reason)")
        }
        let secret = Successor.takeSecret(environment: environment)
        let files = Reloader.look(at: configuration)
        server = try GatewayServer(
            configuration, inherited: InheritedSockets(environment: environment),
            tickets: secret.map(TicketKeys.init(handedOver:)) ?? TicketKeys())
        logWriter = try LogWriter(configuration, server.shared)
        exporter = try SpanExporter(configuration, server.shared, version: Version.number)
        store = try StoreThread(configuration, server)
        let reloader = Reloader(server, source, files: files)
        self.reloader = reloader
        if let wanted = configuration.admin {
            admin = try AdminServer(
                wanted, server: server, poller: poller,
                reload: { reloader.reload(because: "a request to reload") },
                facts: {
                    MetricsFacts(
                        version: Version.number, certificates: reloader.certificates, reloads: reloader.facts)
                })
        }
        reloader.whenAccepted = { [admin, logWriter, exporter] configuration in
            admin?.adopt(configuration)
            logWriter.adopt(configuration)
            exporter.adopt(configuration)
        }
        server.inherited.closeRest()
    }

    var adminAddress: SocketAddress? { admin?.address }

    /// A line of the program's own log.
    func announce(_ text: String) { server.shared.report(.info, text, every: 0) }

    /// Serves until a signal ends it.
    ///
    /// - Parameter whenServing: called once everything answers.
    func run(whenServing: (Service) -> Void) throws(ServerProblem) {
        try logWriter.start()
        try exporter.start()
        try store.start()
        try admin?.start()
        try server.start()
        whenServing(self)
        // systemd hears of a successor from the process that it still knows as the service.
        if !Successor.isAwaited(environment: environment) { manager.ready() }
        Successor.sayReady(environment: environment)
        loop()
        guard let exit = try? ExitGuard(signals, manager, isHurried: isHurried) else { return end() }
        exit.watch { end() }
    }

    /// Has signals wait for the control loop. Before any other thread, which would take them as they come.
    static func takeSignals() throws(ServerProblem) -> Descriptor {
        do {
            return try Signals.install()
        } catch {
            throw ServerProblem("the system refuses an event descriptor: \(error.reason)")
        }
    }

    /// Waits for all threads.
    private func end() {
        server.join()
        admin?.stop()
        store.stop()
        exporter.stop()
        logWriter.stop()
    }

    /// Serving, then draining: listeners stay open for `drain_delay` so that balancers notice first, calls
    /// under way get `drain` to finish.
    private func loop() {
        var events = EventList(capacity: 64)
        while !isDraining || server.isRunning {
            // One that hangs never stops: whoever asked twice is not kept waiting for it.
            if MonotonicClock.nowMicroseconds() >= leavesAt { return }
            poller.wait(timeoutMilliseconds: waitMilliseconds, into: &events)
            let now = MonotonicClock.nowMicroseconds()
            for index in 0..<events.count {
                switch events[index].token {
                case Tokens.signals: while let signal = Signals.next(signals) { handle(signal, now) }
                case Tokens.successor: successorSpeaks(now)
                default: admin?.handle(events[index], nowMicroseconds: now)
                }
            }
            admin?.tick(nowMicroseconds: now)
            if !isDraining { reloader.tick(nowMicroseconds: now) }
            tick(now)
        }
    }

    private var waitMilliseconds: Int32 {
        if isDraining { return 20 }
        return manager.watchdogMicroseconds > 0
            ? Int32(clamping: min(1_000, manager.watchdogMicroseconds / 1_000)) : 1_000
    }

    private func handle(_ signal: Signals.Received, _ now: Int64) {
        switch signal {
        case .reload:
            guard !isDraining else { return }
            manager.reloading()
            reloader.reload(because: "SIGHUP")
            manager.ready()
        case .reopen: logWriter.reopen()
        case .upgrade: beginUpgrade(now)
        case .childEnded: Successor.reap()
        case .terminate where isDraining:
            announce("second signal: ending at once")
            stopsAt = now
            isHurried = true
            leavesAt = min(leavesAt, now + Self.hurryMicroseconds)
        case .terminate:
            announce("draining")
            manager.stopping()
            let timeouts = server.plan.configuration.timeouts
            server.beginDrain()
            isDraining = true
            closesListenersAt = now + Int64(timeouts.drainDelay) * 1_000
            stopsAt = closesListenersAt + Int64(timeouts.drain) * 1_000
        }
    }

    private func tick(_ now: Int64) {
        server.shared.tickets.rotateIfDue(nowMicroseconds: now)
        if now >= closesListenersAt {
            closesListenersAt = Int64.max
            server.closeListeners()
        }
        if now >= stopsAt {
            stopsAt = Int64.max
            server.stopNow(isHurried: isHurried)
        }
        if let upgrade, now >= upgrade.deadline {
            Successor.kill(upgrade.processIdentifier)
            failUpgrade("it does not serve after \(Self.upgradeMicroseconds / 1_000_000) s")
        }
        if now >= weighsAt {
            weighsAt = now + Self.weighMicroseconds
            weigh()
        }
        // A worker that is stuck must not be covered by a control loop that is not.
        if manager.watchdogMicroseconds > 0, now >= pingsAt, server.takeSignsOfLife() {
            pingsAt = now + manager.watchdogMicroseconds / 2
            manager.isAlive()
        }
    }

    /// Compares the process's memory with its watermark.
    private func weigh() {
        var next = MemoryPressure.none
        if let watermark = server.plan.configuration.limits.memoryBytes {
            var resident = Int(ProcessUsage.residentBytes())
            if resident >= (pressure == .none ? watermark : watermark / 10 * 9) {
                // What connections of before have left in the allocator would keep callers out for ever.
                ProcessUsage.returnFreedMemory()
                resident = Int(ProcessUsage.residentBytes())
            }
            if resident >= watermark {
                next = pressure == .none ? .raised : .high
            } else if pressure != .none, resident >= watermark / 10 * 9 {
                next = .raised
            }
        }
        guard next != pressure || next == .high else { return }
        if next != pressure {
            server.shared.report(
                next == .none ? .info : .warning,
                next == .none
                    ? "memory is below the watermark: connections are accepted"
                    : "memory is over limits.memory: no connection is accepted", every: 10)
        }
        pressure = next
        server.setPressure(next)
    }

    // MARK: Upgrade

    /// Starts the program anew with the listening sockets; this process goes on until it serves.
    private func beginUpgrade(_ now: Int64) {
        guard !isDraining, upgrade == nil else {
            announce("SIGUSR2: a program is taking over already, or this one is ending")
            return
        }
        guard ProcessLimits.processIdentifier != 1 else {
            // Its end would be the container's, whatever it had started.
            server.shared.report(
                .error, "SIGUSR2: the first process of a container cannot be replaced: replace the container",
                every: 0)
            return
        }
        let arguments = CommandLine.arguments
        guard let path = Successor.ownPath(calledAs: arguments.first ?? "") else {
            server.shared.report(.error, "SIGUSR2: the program's own path is not known", every: 0)
            return
        }
        let sockets = server.namedSockets + (admin.map { [$0.namedSocket] } ?? [])
        let secret = sealTickets()
        defer { if let secret { Socket.close(secret) } }
        do {
            let started = try Successor.start(
                path: path, arguments: Array(arguments.dropFirst()), environment: environment,
                sockets: sockets, secret: secret)
            try poller.add(started.ready, token: Tokens.successor, .read)
            upgrade = Upgrade(
                processIdentifier: started.processIdentifier, ready: started.ready,
                deadline: now + Self.upgradeMicroseconds)
            announce("SIGUSR2: process \(started.processIdentifier) is starting")
        } catch {
            server.shared.report(.error, "SIGUSR2: \(path) cannot be started: \(error.reason)", every: 0)
        }
    }

    /// What the other program needs so that sessions go on; without it callers make full handshakes.
    private func sealTickets() -> Descriptor? {
        do {
            return try SealedMemory.make(server.shared.tickets.handOver())
        } catch {
            server.shared.report(
                .warning, "SIGUSR2: TLS sessions will not be resumed: \(error.reason)", every: 0)
            return nil
        }
    }

    /// The program that was started serves, or has ended.
    private func successorSpeaks(_ now: Int64) {
        guard let started = upgrade else { return }
        guard Successor.isReady(started.ready) else {
            failUpgrade("it has ended; its own log says why")
            return
        }
        endUpgrade(started)
        announce("process \(started.processIdentifier) has taken over; draining")
        manager.handOver(to: started.processIdentifier)
        server.beginDrain()
        // Nobody has to notice first: whoever connects reaches the other process from here on.
        server.releaseListeners()
        admin?.stopListening()
        isDraining = true
        stopsAt = now + Int64(server.plan.configuration.timeouts.drain) * 1_000
    }

    private func failUpgrade(_ why: String) {
        guard let started = upgrade else { return }
        endUpgrade(started)
        server.shared.report(
            .error, "process \(started.processIdentifier) has not taken over: \(why); this one goes on",
            every: 0)
    }

    private func endUpgrade(_ started: Upgrade) {
        upgrade = nil
        poller.remove(started.ready)
        Socket.close(started.ready)
    }
}
