import Configuration
import DataPlane
import KeyManagement
import Reactor

/// Slow work on keys beside the traffic: how often replaced keys are still used is written down, records of
/// other programs get their entries in the index, and keys that are due for rotation are counted.
struct KeyChores: Sendable {
    private static let writeMilliseconds = 1_000
    /// Between two counts, and after one that failed.
    private static let countMicroseconds: Int64 = 600_000_000
    private static let retryMicroseconds: Int64 = 30_000_000
    /// Between two commands of a count, so that it is no load for Redis: 100,000 keys take some six seconds.
    private static let pauseMilliseconds = 10

    private let configuration: GatewayConfiguration
    private let server: GatewayServer

    init(_ configuration: GatewayConfiguration, _ server: GatewayServer) {
        self.configuration = configuration
        self.server = server
    }

    func run(until stopping: Wakeup) {
        guard let store = try? KeyStore(configuration, timeoutMilliseconds: 1_000, connects: false) else {
            return
        }
        var countsAt: Int64 = 0
        while !Readiness.pause(milliseconds: Self.writeMilliseconds, unless: stopping) {
            writeCalls(store)
            let now = MonotonicClock.nowMicroseconds()
            guard now >= countsAt else { continue }
            countsAt = now + (count(store, stopping) ? Self.countMicroseconds : Self.retryMicroseconds)
        }
        writeCalls(store)
    }

    private func writeCalls(_ store: KeyStore) {
        let calls = server.shared.takeCalls()
        guard !calls.isEmpty, (try? store.addCalls(calls)) == nil else { return }
        // Kept until the store is back; what happened is known, only where it is written is not.
        server.shared.returnCalls(calls)
    }

    private func count(_ store: KeyStore, _ stopping: Wakeup) -> Bool {
        func pause() -> Bool { !Readiness.pause(milliseconds: Self.pauseMilliseconds, unless: stopping) }
        do {
            try store.adoptAll(pause: pause)
            server.shared.keysDueForRotation = try store.count(KeyFilter(isDue: true), pause: pause)
            return true
        } catch {
            return false
        }
    }
}
