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
    }

    let server: GatewayServer
    private let poller: Poller
    private let signals: Descriptor
    private var admin: AdminServer?
    private let logWriter: LogWriter
    private let store: StoreThread
    private let reloader: Reloader

    /// Binds everything.
    ///
    /// - Parameter source: reads the configuration again; nil where there is no file to read.
    /// - Throws: `ServerProblem`.
    init(
        _ configuration: GatewayConfiguration, source: Reloader.Source? = nil
    ) throws(ServerProblem) {
        do {
            signals = try Signals.install()
            poller = try Poller()
            try poller.add(signals, token: Tokens.signals, .read)
        } catch {
            throw ServerProblem("the system refuses an event descriptor: \(error.reason)")
        }
        server = try GatewayServer(configuration)
        logWriter = try LogWriter(configuration, server.shared)
        store = try StoreThread(configuration, server)
        let reloader = Reloader(server, source)
        self.reloader = reloader
        if let wanted = configuration.admin {
            admin = try AdminServer(address: wanted.address, server: server, poller: poller) {
                MetricsFacts(
                    version: Version.number, certificates: reloader.certificates, reloads: reloader.facts)
            }
        }
    }

    var adminAddress: SocketAddress? { admin?.address }

    /// A line of the program's own log.
    func announce(_ text: String) { server.shared.report(.info, text, every: 0) }

    /// Serves until a signal ends it.
    ///
    /// - Parameter whenServing: called once everything answers.
    func run(whenServing: (Service) -> Void) throws(ServerProblem) {
        try logWriter.start()
        try store.start()
        try server.start()
        whenServing(self)
        loop()
        server.join()
        store.stop()
        logWriter.stop()
    }

    /// Serving, then draining: listeners stay open for `drain_delay` so that balancers notice first, calls
    /// under way get `drain` to finish.
    private func loop() {
        var events = EventList(capacity: 64)
        var closesListenersAt = Int64.max
        var stopsAt = Int64.max
        var rotatesTicketsAt = MonotonicClock.nowMicroseconds() + TicketKeys.lifetimeMicroseconds
        var isDraining = false
        while true {
            poller.wait(timeoutMilliseconds: isDraining ? 20 : 1_000, into: &events)
            let now = MonotonicClock.nowMicroseconds()
            for index in 0..<events.count {
                guard events[index].token == Tokens.signals else {
                    admin?.handle(events[index], nowMicroseconds: now)
                    continue
                }
                while let signal = Signals.next(signals) {
                    switch signal {
                    case .reload: if !isDraining { reloader.reload(because: "SIGHUP") }
                    case .upgrade: break
                    case .terminate where isDraining:
                        announce("second signal: ending at once")
                        stopsAt = now
                    case .terminate:
                        isDraining = true
                        announce("draining")
                        server.beginDrain()
                        let timeouts = server.plan.configuration.timeouts
                        closesListenersAt = now + Int64(timeouts.drainDelay) * 1_000
                        stopsAt = closesListenersAt + Int64(timeouts.drain) * 1_000
                    }
                }
            }
            admin?.tick(nowMicroseconds: now)
            if !isDraining { reloader.tick(nowMicroseconds: now) }
            if now >= rotatesTicketsAt {
                rotatesTicketsAt = now + TicketKeys.lifetimeMicroseconds
                server.shared.tickets.rotate()
            }
            if now >= closesListenersAt {
                closesListenersAt = Int64.max
                server.closeListeners()
            }
            if now >= stopsAt {
                stopsAt = Int64.max
                server.stopNow()
            }
            if isDraining, !server.isRunning { return }
        }
    }
}
