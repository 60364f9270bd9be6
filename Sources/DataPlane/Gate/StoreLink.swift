import Configuration
import HTTPWire
import Keys
import Limits
import Reactor
import Redis
import TLS

// The worker's connections to Redis: look-ups of keys and debits of windows, pipelined, one write a turn.
// There is one lane, or one to each master of a cluster. While a lane is away nothing waits for it: known
// keys serve, unknown keys get 503, and limits follow `on_outage`.

extension Worker {
    @inline(__always)
    var firstLane: StoreLane? { ways.firstLane }
    @inline(__always)
    var isCluster: Bool { ways.isCluster }
    var hasStore: Bool { firstLane != nil }

    func startStore() {
        guard let firstLane else { return }
        store.value.lanes = [firstLane]
        if ways.isFollowing {
            if let topology = shared.storeTopology { adopt(topology) }
        } else {
            connect(firstLane)
            firstLane.state.value.isFresh = firstLane.connection.phase != .closed
        }
    }

    func stopStore() {
        for lane in store.value.lanes { lane.connection.close("") }
    }

    func connect(_ lane: StoreLane) {
        lane.state.value.attemptMicroseconds = state.value.nowMicroseconds
        // Other gateways may know that Redis's clock has been set; before that is known nothing is decided.
        guard isCluster || shared.storeClock.current.isKnown else {
            lane.state.value.isFresh = false
            scheduleAttempt(lane, "the store's clock has not been read")
            return
        }
        switch plan.configuration.store.endpoint {
        case .unixSocket(let path): lane.connection.connect(toUnixPath: path)
        default:
            guard let address = ways.isFollowing ? lane.address : storeAddress(lane) else {
                scheduleAttempt(lane, "the store's name has not been resolved")
                return
            }
            lane.state.value.address = address
            lane.connection.connect(to: address, serverName: lane.state.value.master?.node.host)
        }
        if lane.connection.phase == .closed { noteStorePhase(lane) }
    }

    /// The address to try: the last one, or the next when that could not be reached.
    private func storeAddress(_ lane: StoreLane) -> SocketAddress? {
        let addresses = shared.storeAddresses
        guard let last = lane.state.value.address, let place = addresses.firstIndex(of: last) else {
            return addresses.first
        }
        return addresses[(lane.state.value.isAddressBad ? place + 1 : place) % addresses.count]
    }

    private func scheduleAttempt(_ lane: StoreLane, _ reason: String) {
        let delay = lane.state.value.delay.take(random: state.value.random.next())
        lane.state.value.nextAttemptMicroseconds = state.value.nowMicroseconds + delay
        shared.report(.warning, "store: \(reason)", every: 10)
    }

    /// Milliseconds until the store wants a turn, however quiet it is.
    var storeWaitMilliseconds: Int32 {
        guard let firstLane else { return 200 }
        let isWaiting =
            !store.value.later.isEmpty || !store.value.leased.isEmpty || !store.value.delayed.isEmpty
        var milliseconds: Int32 = isWaiting ? 5 : 200
        guard isCluster else { return min(milliseconds, waitMilliseconds(firstLane)) }
        for lane in store.value.lanes where lane.address != nil {
            milliseconds = min(milliseconds, waitMilliseconds(lane))
        }
        return milliseconds
    }

    private func waitMilliseconds(_ lane: StoreLane) -> Int32 {
        if !lane.isReady || shared.rollCall.isOpen(state.value.nowMicroseconds) { return 10 }
        return lane.state.value.pending.count > 0 ? 20 : 200
    }

    func handleStore(_ event: Event, _ number: Int) {
        guard let firstLane else { return }
        let lane = number == 0 ? firstLane : store.value.lanes[number]
        lane.connection.handle(event)
        while let reply = lane.connection.nextReply() {
            takeReply(reply, lane)
            endStep()
        }
        noteStorePhase(lane)
    }

    /// Reconnects, and gives up on answers that are late.
    func storeTick() {
        guard let firstLane else { return }
        leaseTick()
        tidyTick()
        guard isCluster else {
            tick(firstLane)
            return
        }
        sendLater()
        for lane in store.value.lanes { tick(lane) }
    }

    private func tick(_ lane: StoreLane) {
        let now = state.value.nowMicroseconds
        let timeout = rows.storeTimeoutMicroseconds
        switch lane.connection.phase {
        case .closed:
            guard now >= lane.state.value.nextAttemptMicroseconds else { return }
            // Until it is known where the master is, nothing is tried.
            if !ways.isFollowing || lane.address != nil { connect(lane) }
            return
        case .connecting, .handshaking, .preparing:
            guard now - lane.state.value.attemptMicroseconds > max(timeout, 250_000) else { return }
            lane.connection.close("no answer while connecting")
        case .ready:
            restoreTick(lane)
            rollCallTick(lane)
            if lane.state.value.breaker.mayProbe(nowMicroseconds: now) { probe(lane) }
            // What these sent may have found the connection lost.
            guard lane.connection.phase != .closed else { break }
            guard let oldest = lane.state.value.pending.oldest, now - oldest.sentMicroseconds > timeout else {
                return
            }
            if lane.state.value.breaker.isProbing { lane.state.value.breaker.trip(nowMicroseconds: now) }
            lane.connection.close("no answer within \(plan.configuration.store.timeoutMilliseconds) ms")
        }
        noteStorePhase(lane)
    }

    /// Reacts when a connection has become ready or was lost.
    func noteStorePhase(_ lane: StoreLane) {
        if lane.isReady {
            if !lane.state.value.wasReady { laneIsReady(lane) }
        } else if lane.state.value.wasReady || lane.connection.phase == .closed {
            let wasReady = lane.state.value.wasReady
            let concernsCalls = wasReady || lane.state.value.isFresh
            if wasReady {
                lane.state.value.breaker.trip(nowMicroseconds: state.value.nowMicroseconds)
            }
            lane.state.value.wasReady = false
            lane.state.value.isFresh = false
            // Questions that nobody waits for go with their connection.
            if !concernsCalls { while lane.state.value.pending.removeFirst() != nil {} }
            if concernsCalls {
                storeIsLost(lane)
                noteStoreIsUp()
                if ways.isFollowing { shared.requestTopology() }
            }
            if lane.connection.phase == .closed,
                lane.state.value.nextAttemptMicroseconds <= state.value.nowMicroseconds
            {
                let reason = lane.connection.failureReason
                // A replica has the master's name too, where somebody has given them one.
                lane.state.value.isAddressBad = !wasReady || StoreRefusal(text: reason) == .readOnly
                scheduleAttempt(lane, reason)
            }
        }
    }

    /// Asks something that no caller waits for.
    private func probe(_ lane: StoreLane) {
        guard lane.state.value.pending.count == 0 else { return }
        var writer = ByteWriter(lane.connection.output)
        CommandWriter.begin(1, into: &writer)
        CommandWriter.append("PING", into: &writer)
        lane.connection.output.commit(writer)
        lane.state.value.pending.append(
            PendingCommand(kind: .probe, sentMicroseconds: MonotonicClock.nowMicroseconds()))
        lane.connection.flush()
    }

    private func laneIsReady(_ lane: StoreLane) {
        lane.state.value.wasReady = true
        lane.state.value.isFresh = false
        lane.state.value.needsScript = false
        lane.state.value.delay.reset()
        noteStoreIsUp()
        let place = lane.address.map { "\($0)" } ?? ""
        let isLoss = shared.generations.note(
            lane.connection.history, at: place, isOnly: !isCluster, isSuccessor: lane.state.value.isSuccessor)
        lane.state.value.isSuccessor = false
        noteHistory(lane)
        if isLoss {
            if !isCluster, lane.state.value.historyNumber != 0 {
                shared.rollCall.begin(
                    history: lane.state.value.historyNumber, gateways: shared.liveNodes,
                    nowMicroseconds: MonotonicClock.nowMicroseconds())
            }
            shared.report(
                .warning, "store: another Redis, or a restarted one: its latest writes may be lost", every: 5)
        }
        shared.report(.info, "store: connected", every: 5)
        for number in lane.state.value.waitingLookups { ask(lane, Int(number)) }
        lane.state.value.waitingLookups.removeAll()
    }

    /// The store is up when every master that is known is reached.
    func noteStoreIsUp() {
        let isKnown = !isCluster || !store.value.owners.isEmpty
        let isUp = isKnown && store.value.lanes.allSatisfy { $0.isReady || isResting($0) }
        metrics.set(.storeUp, to: isUp ? 1 : 0)
    }

    /// Whether a cluster has no master for it at the moment.
    private func isResting(_ lane: StoreLane) -> Bool { isCluster && lane.address == nil }

    /// Whoever waits for a lane is answered without the store.
    private func storeIsLost(_ lane: StoreLane) {
        while let command = lane.state.value.pending.removeFirst() {
            switch command.kind {
            case .lookup: lookupIsLost(Int(command.number))
            case .take:
                for _ in 0..<command.number {
                    guard let index = lane.state.value.debits.removeFirst() else { break }
                    decideWithoutStore(Int(index))
                }
            case .script, .asking, .probe, .roll: break
            }
        }
        for number in lane.state.value.waitingLookups { lookupIsLost(Int(number)) }
        lane.state.value.waitingLookups.removeAll()
        decideQueueWithoutStore(lane)
    }

    private func decideQueueWithoutStore(_ lane: StoreLane) {
        let queue = lane.state.value.queue
        lane.state.value.queue.removeAll(keepingCapacity: true)
        for index in queue { decideWithoutStore(Int(index)) }
    }

    /// Sends the commands of this turn.
    func flushStore() {
        guard let firstLane else { return }
        guard isCluster else {
            flush(firstLane)
            return
        }
        for lane in store.value.lanes { sortOutQueue(lane) }
        for lane in store.value.lanes { flush(lane) }
    }

    private func flush(_ lane: StoreLane) {
        guard lane.isReady else {
            // What was queued since the connection broke. A new one may be proving itself by now: what it was
            // asked stays asked.
            if !lane.state.value.queue.isEmpty, !lane.state.value.isFresh { decideQueueWithoutStore(lane) }
            return
        }
        writeDebits(lane)
        lane.connection.flush()
        noteStorePhase(lane)
    }

    private func takeReply(_ reply: Reply, _ lane: StoreLane) {
        guard let command = lane.state.value.pending.removeFirst() else {
            lane.connection.close("an answer that nobody asked for")
            return
        }
        // The turn's clock may be older than the question when both belong to one turn.
        let now = MonotonicClock.nowMicroseconds()
        let row = command.kind == .lookup ? 0 : 1
        metrics.storeDurations.observe(
            histogramAt: row * LatencyBuckets.cells, microseconds: now - command.sentMicroseconds)
        if reply.kind == .error, sendAgain(command, StoreRefusal(reply), lane) { return }
        switch command.kind {
        case .lookup: takeRecord(reply, Int(command.number), askedMicroseconds: command.sentMicroseconds)
        case .take: takeDebits(reply, command, lane, answeredMicroseconds: now)
        case .script:
            if reply.kind == .error { lane.connection.close("Redis refuses SCRIPT: \(reply.text)") }
        case .asking: break
        case .probe: lane.state.value.breaker.proved()
        case .roll: takeRoll(reply, lane)
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

    /// Puts a whole queue before another, in its order.
    func putBack(_ list: inout WaiterList, before rest: inout WaiterList) {
        guard list.head >= 0 else { return }
        waiters[Int(list.tail)].next = rest.head
        if rest.head < 0 { rest.tail = list.tail }
        rest.head = list.head
        rest.count += list.count
        list = WaiterList()
    }
}
