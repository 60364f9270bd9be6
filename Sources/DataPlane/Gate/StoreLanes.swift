import Configuration
import Keys
import Limits
import Reactor
import Redis

// Which lane a command belongs to, and what becomes of one that Redis sends elsewhere. A single server has
// one lane. In a cluster the slot of an account's windows, or of a key's record, belongs to one master; while
// slots move, `MOVED` and `ASK` say where a command goes instead. Such a command has taken no effect, and
// neither has one whose script is not known: both are sent again, in order, until `timeout` is over.

extension Worker {
    private static let retryMicroseconds: Int64 = 5_000

    /// The lane of an account's windows; nil when nobody serves them.
    @inline(__always)
    func lane(of account: Slot<Account>) -> StoreLane? {
        guard isCluster else { return firstLane }
        if account.value.askedLane >= 0 {
            // Nothing may have been sent there since, and its master may be gone by now.
            let asked = store.value.lanes[Int(account.value.askedLane)]
            if asked.takesCalls { return asked }
        }
        return lane(ofSlot: account.value.slot)
    }

    /// The lane of a key's record.
    func lane(of digest: Digest256) -> StoreLane? {
        guard isCluster else { return firstLane }
        var name = Block.allocate(capacity: storePrefix.count + 4 + Digest256.hexadecimalCount)
        defer { name.deallocate() }
        var writer = ByteWriter(name)
        writer.append(storePrefix.readable)
        writer.append("key:")
        let hexadecimal = digest.hexadecimalBytes
        writer.append(hexadecimal.span)
        name.commit(writer)
        return lane(ofSlot: ClusterSlot.of(name.readable))
    }

    private func lane(ofSlot slot: UInt16) -> StoreLane? {
        guard Int(slot) < store.value.owners.count else { return nil }
        let number = store.value.owners[Int(slot)]
        return number == ClusterSlot.nobody ? nil : store.value.lanes[Int(number)]
    }

    /// Whether Redis can be asked about an account's windows; without an account, whether it is there at all.
    @inline(__always)
    func isStoreReady(for account: Slot<Account>?) -> Bool {
        guard isCluster, let account else { return firstLane?.isReady ?? false }
        return lane(of: account)?.takesCalls ?? false
    }

    func isStoreReady(for digest: Digest256) -> Bool { lane(of: digest)?.takesCalls ?? false }

    // MARK: Sending again

    /// Sends a command again that Redis has not carried out.
    ///
    /// - Returns: false when that does not help.
    func sendAgain(_ command: PendingCommand, _ refusal: StoreRefusal, _ lane: StoreLane) -> Bool {
        switch refusal {
        case .noScript where command.kind == .take:
            lane.state.value.needsScript = true
            takeBack(command, lane)
        case .moved(let slot, let node) where isCluster:
            shared.requestTopology()
            let isLeft = self.lane(ofSlot: slot).map { !$0.isReady } ?? false
            guard let target = self.lane(to: node, isSuccessor: isLeft) else {
                sendLater(command, lane)
                break
            }
            if Int(slot) < store.value.owners.count {
                store.value.owners[Int(slot)] = UInt8(truncatingIfNeeded: target.number)
            }
            if command.kind == .lookup { askAgain(command, target) } else { takeBack(command, lane) }
        case .ask(let node) where isCluster:
            guard let target = self.lane(to: node) else {
                shared.requestTopology()
                sendLater(command, lane)
                break
            }
            if command.kind == .lookup {
                askAgain(command, target, asking: true)
            } else {
                takeBack(command, lane, askedLane: target.number)
            }
        case .tryAgain where command.kind == .take: sendLater(command, lane)
        default: return false
        }
        return true
    }

    /// Whether whoever waits for the answer to that question has waited for `timeout`.
    func isTooLate(_ startedMicroseconds: Int64) -> Bool {
        MonotonicClock.nowMicroseconds() - startedMicroseconds
            > rows.storeTimeoutMicroseconds
    }

    private func askAgain(_ command: PendingCommand, _ lane: StoreLane, asking: Bool = false) {
        let number = Int(command.number)
        guard lane.takesCalls, lane.hasRoomForLookup, !isTooLate(lookups[number].startedMicroseconds) else {
            lookupIsLost(number)
            return
        }
        ask(lane, number, asking: asking)
    }

    /// Has the calls of a debit wait again, before those that came later.
    private func takeBack(_ command: PendingCommand, _ lane: StoreLane, askedLane: Int32 = -1) {
        for _ in 0..<command.number {
            guard let index = lane.state.value.debits.removeFirst() else { break }
            let account = account(at: Int(index))
            if isTooLate(account.value.firstSentMicroseconds) {
                decideWithoutStore(Int(index))
                continue
            }
            account.value.askedLane = askedLane
            putBack(&account.value.debited, before: &account.value.waiting)
            debitIsLost(account)
            debitIsOver(account)
        }
    }

    /// The same after a pause: the cluster is busy with the slot. An account with several windows has to wait
    /// like this whenever its slot is half moved and some of them are there and some are not; when `timeout`
    /// is over, `on_outage` says what becomes of its calls. A record is not worth it.
    private func sendLater(_ command: PendingCommand, _ lane: StoreLane) {
        if command.kind == .lookup {
            lookupIsLost(Int(command.number))
            return
        }
        for _ in 0..<command.number {
            guard let index = lane.state.value.debits.removeFirst() else { break }
            let account = account(at: Int(index))
            if isTooLate(account.value.firstSentMicroseconds) {
                decideWithoutStore(Int(index))
                continue
            }
            putBack(&account.value.debited, before: &account.value.waiting)
            // As if it were queued, so that nothing sends it before its time.
            account.value.isQueued = true
            account.value.holders += 1
            store.value.later.append(index)
            store.value.laterMicroseconds = state.value.nowMicroseconds + Self.retryMicroseconds
            debitIsLost(account)
            debitIsOver(account)
        }
    }

    /// Queues what has waited long enough.
    func sendLater() {
        guard !store.value.later.isEmpty, state.value.nowMicroseconds >= store.value.laterMicroseconds else {
            return
        }
        let later = store.value.later
        store.value.later = []
        for index in later {
            guard let lane = lane(of: account(at: Int(index))) ?? firstLane else { continue }
            lane.state.value.queue.append(index)
        }
    }

    // MARK: Writing

    /// Moves debits whose slot has another owner by now to its queue.
    func sortOutQueue(_ lane: StoreLane) {
        var kept = 0
        var homeless: [Int32] = []
        for position in 0..<lane.state.value.queue.count {
            let index = lane.state.value.queue[position]
            guard let owner = self.lane(of: account(at: Int(index))) else {
                homeless.append(index)
                continue
            }
            if owner === lane {
                lane.state.value.queue[kept] = index
                kept += 1
            } else {
                owner.state.value.queue.append(index)
            }
        }
        if kept < lane.state.value.queue.count {
            lane.state.value.queue.removeLast(lane.state.value.queue.count - kept)
        }
        for index in homeless { decideWithoutStore(Int(index)) }
    }

    /// Where the debits end that one call may hold: those of one slot.
    func endOfSlot(_ lane: StoreLane, _ range: Range<Int>) -> Int {
        let first = account(at: Int(lane.state.value.queue[range.lowerBound]))
        if first.value.askedLane >= 0 {
            writeAsking(lane)
            first.value.askedLane = -1
            return range.lowerBound + 1
        }
        var end = range.lowerBound + 1
        while end < range.upperBound {
            let next = account(at: Int(lane.state.value.queue[end]))
            guard next.value.slot == first.value.slot, next.value.askedLane < 0 else { break }
            end += 1
        }
        return end
    }

    func writeAsking(_ lane: StoreLane) {
        var writer = ByteWriter(lane.connection.output)
        CommandWriter.begin(1, into: &writer)
        CommandWriter.append("ASKING", into: &writer)
        lane.connection.output.commit(writer)
        lane.state.value.pending.append(
            PendingCommand(kind: .asking, sentMicroseconds: MonotonicClock.nowMicroseconds()))
    }

    /// Has Redis learn the script before the debits that follow.
    func loadScript(_ lane: StoreLane) {
        guard !lane.state.value.pending.isFull, lane.connection.loadScript() else { return }
        lane.state.value.needsScript = false
        lane.state.value.pending.append(
            PendingCommand(kind: .script, sentMicroseconds: MonotonicClock.nowMicroseconds()))
    }

    // MARK: Masters

    /// The lane to a node that Redis has named; a new one is connected to. Nil when that takes a name's
    /// address, which is looked up elsewhere, or too many masters.
    private func lane(to node: StoreNode, isSuccessor: Bool = false) -> StoreLane? {
        let named = store.value.lanes.first { $0.state.value.master?.node == node }
        if let named { return named }
        guard let address = node.literalAddress else { return nil }
        if let known = store.value.lanes.first(where: { $0.address == address }) { return known }
        guard let lane = restingLane() else { return nil }
        lane.state.value.isSuccessor = isSuccessor
        lead(lane, to: StoreTopology.Master(node: node, address: address))
        return lane
    }

    private func restingLane() -> StoreLane? {
        if let resting = store.value.lanes.first(where: { $0.address == nil }) { return resting }
        guard store.value.lanes.count < StoreTopology.mastersMax else { return nil }
        let lane = StoreLane(
            number: Int32(store.value.lanes.count),
            connection: StoreWays.connection(
                plan.configuration.store, poller, wire, ways.context, lane: store.value.lanes.count),
            commands: HardLimits.laneCommands, debits: HardLimits.laneDebits)
        store.value.lanes.append(lane)
        return lane
    }

    /// Connects a lane to another master, or to none.
    private func lead(_ lane: StoreLane, to master: StoreTopology.Master?) {
        let before = lane.address
        lane.state.value.master = master
        guard before != master?.address else { return }
        if lane.connection.phase != .closed || lane.state.value.wasReady {
            lane.connection.close("the master is elsewhere now")
            noteStorePhase(lane)
        }
        lane.state.value.delay.reset()
        lane.state.value.nextAttemptMicroseconds = 0
        guard master != nil else { return }
        lane.state.value.isFresh = before == nil
        connect(lane)
    }

    /// Follows the masters that a sentinel or the cluster has named.
    func adopt(_ topology: StoreTopology) {
        guard isCluster else {
            if let firstLane, let master = topology.masters.first { lead(firstLane, to: master) }
            return
        }
        var numbers = topology.masters.map { master in
            store.value.lanes.firstIndex { $0.address == master.address }
        }
        let addresses = Set(topology.masters.map(\.address))
        for (slot, owner) in topology.owners.enumerated() where owner != ClusterSlot.nobody {
            // A replica that took over continues the lane of its master, and so its clock.
            guard numbers[Int(owner)] == nil, slot < store.value.owners.count else { continue }
            let before = store.value.owners[slot]
            guard before != ClusterSlot.nobody, let left = store.value.lanes[Int(before)].address,
                !addresses.contains(left)
            else { continue }
            numbers[Int(owner)] = Int(before)
            store.value.lanes[Int(before)].state.value.isSuccessor = true
            lead(store.value.lanes[Int(before)], to: topology.masters[Int(owner)])
        }
        for lane in store.value.lanes {
            if let address = lane.address, !addresses.contains(address) { lead(lane, to: nil) }
        }
        for (index, master) in topology.masters.enumerated() where numbers[index] == nil {
            guard let lane = restingLane() else { continue }
            lead(lane, to: master)
            numbers[index] = Int(lane.number)
        }
        store.value.owners = topology.owners.map { owner in
            guard owner != ClusterSlot.nobody, let number = numbers[Int(owner)] else {
                return ClusterSlot.nobody
            }
            return UInt8(truncatingIfNeeded: number)
        }
        noteStoreIsUp()
    }
}
