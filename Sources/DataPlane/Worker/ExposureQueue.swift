package import Keys
package import Reactor
import Synchronization

/// A credential that arrived in clear; what to do about it is decided off the workers.
package struct ExposedKey: Sendable {
    package var digest: Digest256
    package var address: SocketAddress

    package init(digest: Digest256, address: SocketAddress) {
        self.digest = digest
        self.address = address
    }
}

/// Credentials on their way from the workers to the store thread: each waits once, however often it came.
package final class ExposureQueue: Sendable {
    /// Credentials that may wait; an attacker who sends more gets the same answer.
    package static let waitingMax = 1_024

    private struct State {
        var keys: [ExposedKey] = []
        var digests: Set<Digest256> = []
        var dropped = 0
    }

    private let state = Mutex(State())
    /// Signalled when the first one waits.
    package let wakeup: Wakeup

    package init() throws(SystemError) { wakeup = try Wakeup() }

    package func post(_ key: ExposedKey) {
        let isFirst = state.withLock { state in
            guard !state.digests.contains(key.digest) else { return false }
            guard state.keys.count < Self.waitingMax else {
                state.dropped += 1
                return false
            }
            state.digests.insert(key.digest)
            state.keys.append(key)
            return state.keys.count == 1
        }
        if isFirst { wakeup.signal() }
    }

    /// All that wait, in the order in which they came.
    package func takeAll() -> [ExposedKey] {
        wakeup.drain()
        return state.withLock { state in
            let keys = state.keys
            state.keys = []
            state.digests = []
            return keys
        }
    }

    /// How many found no room since the last call.
    package func takeDropped() -> Int {
        state.withLock { state in
            let dropped = state.dropped
            state.dropped = 0
            return dropped
        }
    }
}
