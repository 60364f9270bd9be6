import Configuration
import HTTPWire
import Keys
import Limits
import Reactor
import Redis
import TLS

// The worker's connection to Redis: look-ups of keys and debits of windows, pipelined, one write a turn.
// While it is away nothing waits for it: known keys serve, unknown keys get 503, and limits follow
// `on_outage`.

extension Worker {
    var hasStore: Bool { connection != nil }
    var isStoreReady: Bool { connection?.isReady ?? false }

    func startStore() {
        guard connection != nil else { return }
        connectStore()
    }

    func stopStore() { connection?.close("") }

    private func connectStore() {
        guard let connection else { return }
        store.value.attemptMicroseconds = state.value.nowMicroseconds
        switch plan.configuration.store.endpoint {
        case .unixSocket(let path): connection.connect(toUnixPath: path)
        default:
            guard let address = shared.storeAddress else {
                scheduleAttempt("the store's name has not been resolved")
                return
            }
            connection.connect(to: address)
        }
        if connection.phase == .closed { scheduleAttempt(connection.failureReason) }
    }

    private func scheduleAttempt(_ reason: String) {
        let delay = store.value.delay.take(random: state.value.random.next())
        store.value.nextAttemptMicroseconds = state.value.nowMicroseconds + delay
        shared.report(.warning, "store: \(reason)", every: 10)
    }

    /// Milliseconds until the store wants a turn, however quiet it is.
    var storeWaitMilliseconds: Int32 {
        guard hasStore else { return 200 }
        if !isStoreReady { return 10 }
        return store.value.pending.count > 0 ? 20 : 200
    }

    func handleStore(_ event: Event) {
        guard let connection else { return }
        connection.handle(event)
        while let reply = connection.nextReply() {
            takeReply(reply)
            endStep()
        }
        noteStorePhase()
    }

    /// Reconnects, and gives up on answers that are late.
    func storeTick() {
        guard let connection else { return }
        let now = state.value.nowMicroseconds
        let timeout = Int64(plan.configuration.store.timeoutMilliseconds) * 1_000
        switch connection.phase {
        case .closed:
            if now >= store.value.nextAttemptMicroseconds { connectStore() }
        case .connecting, .handshaking, .preparing:
            if now - store.value.attemptMicroseconds > max(timeout, 250_000) {
                connection.close("no answer while connecting")
            }
        case .ready:
            if let oldest = store.value.pending.oldest, now - oldest.sentMicroseconds > timeout {
                connection.close("no answer within \(plan.configuration.store.timeoutMilliseconds) ms")
            }
        }
        noteStorePhase()
    }

    /// Reacts when the connection has become ready or was lost.
    private func noteStorePhase() {
        guard let connection else { return }
        let isReady = connection.isReady
        metrics.set(.storeUp, to: isReady ? 1 : 0)
        if isReady, !store.value.wasReady {
            store.value.wasReady = true
            store.value.delay.reset()
            shared.report(.info, "store: connected", every: 5)
        } else if !isReady, store.value.wasReady || connection.phase == .closed {
            let wasReady = store.value.wasReady
            store.value.wasReady = false
            if wasReady { storeIsLost() }
            if connection.phase == .closed, store.value.nextAttemptMicroseconds <= state.value.nowMicroseconds
            {
                scheduleAttempt(connection.failureReason)
            }
        }
    }

    /// Whoever waits is answered without the store.
    private func storeIsLost() {
        while let command = store.value.pending.removeFirst() {
            switch command.kind {
            case .lookup: finishLookup(Int(command.number), .unavailable)
            case .take:
                for _ in 0..<command.number {
                    guard let index = store.value.debits.removeFirst() else { break }
                    decideWithoutStore(Int(index))
                }
            }
        }
        let queue = store.value.queue
        store.value.queue.removeAll(keepingCapacity: true)
        for index in queue { decideWithoutStore(Int(index)) }
    }

    /// Sends the commands of this turn.
    func flushStore() {
        guard let connection, connection.isReady else {
            // Calls that were queued in the turn in which the connection broke.
            if !store.value.queue.isEmpty { storeIsLost() }
            return
        }
        writeDebits(connection)
        connection.flush()
        noteStorePhase()
    }

    private func takeReply(_ reply: Reply) {
        guard let command = store.value.pending.removeFirst() else {
            connection?.close("an answer that nobody asked for")
            return
        }
        // The turn's clock may be older than the question when both belong to one turn.
        let now = MonotonicClock.nowMicroseconds()
        let row = command.kind == .lookup ? 0 : 1
        metrics.storeDurations.observe(
            histogramAt: row * LatencyBuckets.cells, microseconds: now - command.sentMicroseconds)
        switch command.kind {
        case .lookup: takeRecord(reply, Int(command.number))
        case .take: takeDebits(reply, command, answeredMicroseconds: now)
        }
    }

    // MARK: Waiters

    /// Puts a reference at the end of a queue.
    ///
    /// - Returns: false when too many wait already.
    func addWaiter(_ reference: SlotReference, to list: inout WaiterList) -> Bool {
        let index: Int32
        if store.value.freeWaiter >= 0 {
            index = store.value.freeWaiter
            store.value.freeWaiter = waiters[Int(index)].next
        } else if store.value.untouchedWaiters < Int32(waiters.count) {
            index = store.value.untouchedWaiters
            store.value.untouchedWaiters += 1
        } else {
            return false
        }
        waiters[Int(index)] = Waiter(reference: reference, next: -1)
        if list.tail >= 0 { waiters[Int(list.tail)].next = index } else { list.head = index }
        list.tail = index
        list.count += 1
        return true
    }

    func removeWaiter(from list: inout WaiterList) -> SlotReference? {
        guard list.head >= 0 else { return nil }
        let index = Int(list.head)
        let reference = waiters[index].reference
        list.head = waiters[index].next
        if list.head < 0 { list.tail = -1 }
        list.count -= 1
        waiters[index].next = store.value.freeWaiter
        store.value.freeWaiter = Int32(index)
        return reference
    }
}
