import DataPlane
import Reactor
import Redis

/// Knows where the masters of a store are, and tells the workers when they are elsewhere. For one thread.
final class StoreWatch: @unchecked Sendable {
    // `@unchecked`: handed over to its thread before that starts.
    /// Between two questions while all is well, and while somebody misses a master.
    private static let calmMilliseconds = 1_000
    private static let searchMilliseconds = 100
    private static let timeoutMilliseconds = 500
    /// How often a search asks again before it is calm.
    private static let searchRounds = 20

    private let directory: StoreDirectory
    private let server: GatewayServer
    private var known: StoreTopology?

    init(_ options: StoreOptions, _ server: GatewayServer) {
        directory = StoreDirectory(options, timeoutMilliseconds: Self.timeoutMilliseconds)
        self.server = server
    }

    /// Asks once.
    ///
    /// - Returns: whether the masters could be found.
    @discardableResult
    func look() -> Bool {
        do {
            let found = try directory.find()
            guard found != known else { return true }
            let nodes = found.masters.map { "\($0.node)" }.joined(separator: ", ")
            if found.masters != known?.masters {
                server.shared.report(.info, "store: led by \(nodes)", every: 0)
            }
            known = found
            server.follow(found)
            return true
        } catch {
            server.shared.report(.warning, "store: \(error.text)", every: 10)
            return false
        }
    }

    /// Asks again and again until `stopping` is signalled; at once when a worker has missed a master.
    func run(until stopping: Wakeup) {
        let requests = server.shared.topologyRequests
        var rounds = known == nil ? Self.searchRounds : 0
        while true {
            let isSearching = rounds > 0
            if isSearching {
                // The answer that was just had may be a moment older than what the workers have seen.
                if Readiness.pause(milliseconds: Self.searchMilliseconds, unless: stopping) { return }
                rounds -= 1
            } else {
                Readiness.wait(
                    requests.descriptor, stopping.descriptor, timeoutMilliseconds: Self.calmMilliseconds)
                if Readiness.pause(milliseconds: 0, unless: stopping) { return }
            }
            let isAsked = Readiness.pause(milliseconds: 0, unless: requests)
            requests.drain()
            if isAsked { rounds = Self.searchRounds }
            let before = known
            if !look() {
                rounds = max(rounds, 1)
            } else if before != known {
                rounds = min(rounds, 2)
            }
        }
    }
}
