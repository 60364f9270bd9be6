package import Reactor
import Synchronization

// A store with several masters tells of changes on as many connections, each watched by a listener of its
// own. What is proved holds only as far as the slowest has proved it: while one master is not heard, a change
// of one of its records may be unheard.

/// Hears which records change at every master of a store whose masters change.
package final class InvalidationListeners: Sendable {
    private static let lookMilliseconds = 50
    /// Listeners that may be on their way out at once.
    private static let endingMax = 8

    private struct Listener {
        var thread: ThreadHandle
        var stopping: Wakeup
    }

    /// Up to when each master's changes are known; nil while it is not heard.
    private typealias Proofs = [SocketAddress: Int64?]

    private let options: StoreOptions
    private let prefix: String
    private let recallChannel: String?
    private let proofs = Mutex<Proofs>([:])
    private let tell: @Sendable (InvalidationNews) -> Void

    /// - Parameters:
    ///   - prefix, recallChannel: as for `InvalidationListener`.
    ///   - tell: called on any of the listeners' threads.
    package init(
        _ options: StoreOptions, prefix: String, recallChannel: String? = nil,
        _ tell: @escaping @Sendable (InvalidationNews) -> Void
    ) {
        self.options = options
        self.prefix = prefix
        self.recallChannel = recallChannel
        self.tell = tell
    }

    /// Follows the masters until `stopping` is signalled; then it returns within half a second.
    ///
    /// - Parameter topology: the masters as they are known now; nil before they are.
    package func run(until stopping: Wakeup, _ topology: () -> StoreTopology?) {
        var running: [SocketAddress: Listener] = [:]
        var ending: [Listener] = []
        while !Readiness.pause(milliseconds: Self.lookMilliseconds, unless: stopping) {
            guard let masters = topology()?.masters else { continue }
            let wanted = Set(masters.map(\.address))
            for (address, listener) in running where !wanted.contains(address) {
                listener.stopping.signal()
                ending.append(listener)
                running[address] = nil
                proofs.withLock { $0[address] = nil }
                // Those that were told long ago have ended.
                if ending.count > Self.endingMax { ending.removeFirst().thread.join() }
            }
            for master in masters where running[master.address] == nil {
                // First, so that nothing is proved before this one is heard.
                proofs.withLock { $0[master.address] = .some(nil) }
                running[master.address] = start(master)
            }
        }
        ending += running.values
        for listener in ending { listener.stopping.signal() }
        for listener in ending { listener.thread.join() }
    }

    private func start(_ master: StoreTopology.Master) -> Listener? {
        do {
            let stopping = try Wakeup()
            let thread = try Thread.start(name: "invalidation") { [self] in
                let listener = InvalidationListener(
                    options.leading(to: master.node), prefix: prefix, recallChannel: recallChannel)
                listener.run(until: stopping) { news in take(news, from: master.address) }
            }
            return Listener(thread: thread, stopping: stopping)
        } catch {
            tell(.lost(.unreachable("the system refuses a thread: \(error.reason)")))
            return nil
        }
    }

    /// News of one master as news of all.
    private func take(_ news: InvalidationNews, from address: SocketAddress) {
        switch news {
        case .established:
            let all = note(MonotonicClock.nowMicroseconds(), address)
            tell(all == nil ? .everything : .established)
        case .verified(let sent):
            if let all = note(sent, address) { tell(.verified(sentMicroseconds: all)) }
        case .lost:
            note(nil, address)
            tell(news)
        case .changed, .everything, .recalled: tell(news)
        }
    }

    /// - Returns: up to when every master's changes are known; nil while one is not heard.
    @discardableResult
    private func note(_ instant: Int64?, _ address: SocketAddress) -> Int64? {
        proofs.withLock { proofs -> Int64? in
            // A listener that has been told to end says nothing more.
            guard proofs[address] != nil else { return nil }
            proofs[address] = .some(instant)
            var oldest = Int64.max
            for proof in proofs.values {
                guard let proof else { return nil }
                oldest = min(oldest, proof)
            }
            return oldest
        }
    }
}
