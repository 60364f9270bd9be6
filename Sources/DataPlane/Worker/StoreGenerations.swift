import Reactor
import Redis
import Synchronization

// A replica that takes over has not seen the last writes of its master, and a Redis that restarts may come
// back with less than it had: permits that were granted are missing from the windows, and records may be
// older than what was once read. Each such event begins a new generation of the store.

/// Counts how often the store may have lost its latest writes.
final class StoreGenerations: Sendable {
    /// Histories that are remembered; a store with more masters than this has been long in use.
    private static let historiesMax = 1_024

    private struct State {
        /// The process that the only master was last.
        var process = ""
        /// The process last met at each address.
        var processes: [String: String] = [:]
        /// Every history met.
        var identifiers: Set<String> = []
        /// Names of the histories that began with a loss.
        var losses: Set<String> = []
        /// Histories that have begun a generation, so that each worker that meets one begins no further one.
        var counted: Set<String> = []
    }

    private let state = Mutex(State())
    private let count = Atomic<Int>(0)
    private let latest = Atomic<Int64>(0)

    /// How many there were.
    var generation: Int { count.load(ordering: .acquiring) }
    /// When the latest was noticed, on the monotonic clock; 0 before the first.
    var latestMicroseconds: Int64 { latest.load(ordering: .acquiring) }

    /// Takes note of the server that a fresh connection has led to.
    ///
    /// - Parameters:
    ///   - node: where it is.
    ///   - isOnly: whether the store has one master at a time.
    ///   - isSuccessor: whether it is known to have taken the place of another.
    /// - Returns: whether writes may have been lost.
    func note(_ history: StoreHistory, at node: String, isOnly: Bool, isSuccessor: Bool = false) -> Bool {
        let isLoss = state.withLock { state -> Bool in
            if state.identifiers.count >= Self.historiesMax { state = State() }
            let before = isOnly ? state.process : state.processes[node] ?? ""
            // A server that does not say cannot be told apart.
            let isOther = !history.process.isEmpty && !before.isEmpty && before != history.process
            let isNew = !history.identifier.isEmpty && !state.identifiers.contains(history.identifier)
            let tookOver = isNew && state.identifiers.contains(history.former)
            if isOnly { state.process = history.process } else { state.processes[node] = history.process }
            if !history.identifier.isEmpty { state.identifiers.insert(history.identifier) }
            // A master that a cluster has gained brings nothing along, and has lost nothing.
            if isOther || tookOver {
                state.counted.insert(history.identifier)
                return true
            }
            return isSuccessor && state.counted.insert(history.identifier).inserted
        }
        if isLoss {
            noteLoss()
            _ = state.withLock { $0.losses.insert(history.name) }
        }
        return isLoss
    }

    /// Whether a history began with a loss of writes.
    func isLossy(_ history: StoreHistory) -> Bool { state.withLock { $0.losses.contains(history.name) } }

    /// Writes have been lost.
    func noteLoss() {
        latest.store(MonotonicClock.nowMicroseconds(), ordering: .releasing)
        count.add(1, ordering: .acquiringAndReleasing)
    }
}
