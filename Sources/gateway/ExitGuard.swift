import Reactor

/// Listens to signals, and tells systemd of life, when the control loop has ended and its threads are waited
/// for: one of them may be looking up a name, which nobody can interrupt.
final class ExitGuard: Sendable {
    /// What the rest of the exit may take once somebody has asked for the end at once.
    private static let hurryMicroseconds: Int64 = 1_000_000

    private let signals: Descriptor
    private let manager: ServiceManager
    private let isHurried: Bool
    private let over: Wakeup

    /// - Parameters:
    ///   - signals: what `Signals.install` returned; nobody else reads it any more.
    ///   - isHurried: whether a second signal has come already.
    init(_ signals: Descriptor, _ manager: ServiceManager, isHurried: Bool) throws(SystemError) {
        self.signals = signals
        self.manager = manager
        self.isHurried = isHurried
        over = try Wakeup()
    }

    /// Waits for the end beside it.
    func watch(while body: () -> Void) {
        // Without a thread the exit takes what it takes.
        let thread = try? Thread.start(name: "exit") { [self] in run() }
        body()
        over.signal()
        thread?.join()
    }

    private func run() {
        let endsAt = isHurried ? MonotonicClock.nowMicroseconds() + Self.hurryMicroseconds : Int64.max
        let pause = manager.watchdogMicroseconds > 0 ? manager.watchdogMicroseconds / 2_000 : 1_000
        while MonotonicClock.nowMicroseconds() < endsAt {
            if manager.watchdogMicroseconds > 0 { manager.isAlive() }
            Readiness.wait(
                signals, over.descriptor,
                timeoutMilliseconds: Int(isHurried ? min(pause, Self.hurryMicroseconds / 1_000) : pause))
            if Readiness.pause(milliseconds: 0, unless: over) { return }
            while let signal = Signals.next(signals) {
                if signal == .terminate { ProcessLimits.endAtOnce(0) }
            }
        }
        ProcessLimits.endAtOnce(0)
    }
}
