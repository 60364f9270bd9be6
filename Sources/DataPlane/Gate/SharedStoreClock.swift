package import Limits
import Synchronization

/// What a process knows of the clock of its store, where the store has one: every worker's answers tell of
/// it, and so does the heart, so that a worker without calls knows as well as the others that it was set.
package final class SharedStoreClock: Sendable {
    private let cell = Mutex(StoreClock())
    private let beginnings = Atomic<Int>(0)

    /// Grows when the clock was begun anew: what was translated by the one before holds no longer.
    package var epoch: Int { beginnings.load(ordering: .acquiring) }

    init() {}

    /// As known now.
    package var current: StoreClock { cell.withLock { $0 } }

    /// Takes over what other gateways have found out. Without effect once the store has told its time.
    package func adopt(_ skew: StoreClock.Skew) {
        cell.withLock { clock in
            if !clock.isKnown { clock = StoreClock(skew: skew) }
        }
    }

    /// The store has told its time.
    ///
    /// - Returns: what is known since then, and by how much the clock has been set, see
    ///   `StoreClock.observe`.
    package func observe(_ told: Int64, asked: Int64, answered: Int64) -> (clock: StoreClock, step: Int64) {
        cell.withLock { clock in
            let step = clock.observe(told, asked: asked, answered: answered)
            return (clock, step)
        }
    }

    /// Takes over what others say of the skew, unless it was noticed since `known` that it is another.
    package func follow(_ agreed: StoreClock.Skew, knowing known: StoreClock) {
        cell.withLock { clock in
            if clock.steps == known.steps { clock.follow(agreed) }
        }
    }

    /// See `StoreClock.beginAnew`.
    package func beginAnew(_ agreed: StoreClock.Skew, told: Int64, asked: Int64, answered: Int64) {
        cell.withLock { $0.beginAnew(agreed, told: told, asked: asked, answered: answered) }
        beginnings.add(1, ordering: .releasing)
    }
}
