import Configuration
import HTTPWire
import Keys
import Limits
import Reactor
import Redis

// Limits in Redis. The calls of one turn on one account are one debit; while it is under way, later calls
// wait and make up the next one. All debits of a turn go out in one script call for up to 64 accounts. An
// account that Redis has declared empty is refused here until the instant that Redis named, and one that asks
// for much takes permits from a lease.

extension Worker {
    func limitRemotely(
        _ slot: Slot<Downstream>, headCount: Int, route: Int, _ key: Slot<ActiveKey>
    ) -> Bool {
        let cost = rows.routes[route].cost
        let known = key.value.accountSlot >= 0 ? accounts.occupant(at: Int(key.value.accountSlot)) : nil
        if let known, let (decision, now) = takeFromLease(known, key, cost) {
            countDecision(decision, key: key, isDegraded: false)
            return admit(
                slot, headCount: headCount, route: route, key: key, decision: decision,
                decisionMicroseconds: now)
        }
        guard isStoreReady(for: known) else {
            return limitDegraded(slot, headCount: headCount, route: route, key, cost)
        }
        guard let account = known else {
            return refuse(slot, .overloaded, headCount: headCount, route: route, key: key)
        }
        let now = state.value.nowMicroseconds
        guard now >= account.value.unreadableUntilMicroseconds else {
            return limitDegraded(slot, headCount: headCount, route: route, key, cost)
        }
        // A dearer call is refused too, but waits for longer: Redis knows how long.
        if now < account.value.deniedUntilMicroseconds, cost == account.value.deniedCost,
            account.value.seenPlan == key.value.plan,
            account.value.deniedEpoch == shared.storeClock.epoch
        {
            let decision = account.value.seenDecision
            countDecision(decision, key: key, isDegraded: false)
            return refuseLimited(slot, headCount: headCount, route: route, key, decision, now)
        }
        if isRollCalled(key) {
            return limitDegraded(slot, headCount: headCount, route: route, key, cost)
        }
        if let decision = refusalOutOfCaution(key, cost, now) {
            countDecision(decision, key: key, isDegraded: false)
            return refuseLimited(slot, headCount: headCount, route: route, key, decision, now)
        }
        account.value.demand.note(cost, nowMicroseconds: now)
        guard let exchange = makeExchange(slot, headCount: headCount, route: route, key) else {
            return refuse(slot, .overloaded, headCount: headCount, route: route, key: key)
        }
        exchange.value.phase = .awaitingLimit
        guard addWaiter(exchange.reference, to: &account.value.waiting) else {
            failExchange(exchange, .overloaded, retryAfter: 1)
            return !slot.value.isDead
        }
        enqueue(account)
        return !slot.value.isDead
    }

    /// Has Redis asked about an account in this turn.
    func enqueue(_ account: Slot<Account>) {
        guard !account.value.isQueued, !account.value.isInFlight,
            state.value.nowMicroseconds >= account.value.delayedUntilMicroseconds
        else { return }
        account.value.isQueued = true
        account.value.holders += 1
        if isCluster, let lane = lane(of: account) {
            lane.state.value.queue.append(Int32(account.index))
        } else {
            // The usual way, in which nothing is counted or retained.
            firstLane?.state.value.queue.append(Int32(account.index))
        }
    }

    /// Writes the debits of this turn.
    func writeDebits(_ lane: StoreLane) {
        guard !lane.state.value.queue.isEmpty else { return }
        if lane.state.value.needsScript { loadScript(lane) }
        var start = 0
        while start < lane.state.value.queue.count {
            var end = min(lane.state.value.queue.count, start + TakeScript.itemsMax)
            // 64 items with four windows each, names of 128 bytes, and reports of leases.
            guard lane.connection.output.freeCount > 384 * 1_024, lane.state.value.pending.freeCount > 1,
                lane.state.value.debits.freeCount >= TakeScript.itemsMax
            else { break }
            if isCluster { end = endOfSlot(lane, start..<end) }
            writeCall(lane, start..<end)
            start = end
        }
        if start == lane.state.value.queue.count {
            lane.state.value.queue.removeAll(keepingCapacity: true)
        } else {
            lane.state.value.queue.removeFirst(start)
        }
    }

    private func writeCall(_ lane: StoreLane, _ range: Range<Int>) {
        let connection = lane.connection
        var windows = 0
        var words = 0
        var isRestoring = false
        for position in range {
            let account = account(at: Int(lane.state.value.queue[position]))
            account.value.isQueued = false
            account.value.isInFlight = true
            if account.value.firstSentMicroseconds == 0 {
                account.value.firstSentMicroseconds = state.value.nowMicroseconds
            }
            gatherDebit(account)
            isRestoring = prepareRestoring(account, lane) || isRestoring
            windows += account.value.debitedPlan.count
            let counts = reportCounts(account)
            words += 2 * (counts.spent + counts.lost) + 3 * counts.unasked
        }
        let now = MonotonicClock.nowMicroseconds()
        store.value.calls += 1
        var writer = ByteWriter(connection.output)
        CommandWriter.begin(13 + 3 * windows + 9 * range.count + words, into: &writer)
        CommandWriter.append("EVALSHA", into: &writer)
        CommandWriter.append(connection.scriptName.readable, into: &writer)
        CommandWriter.append(Int64(windows), into: &writer)
        for position in range {
            let account = account(at: Int(lane.state.value.queue[position]))
            for index in 0..<account.value.debitedPlan.count {
                writeName(account, account.value.debitedPlan.windows[index], into: &writer)
            }
        }
        let slack = rows.storeTimeoutMicroseconds
        if !isCluster { lane.state.value.clock = shared.storeClock.current }
        let bounds = lane.state.value.clock.bounds(now, slack: slack)
        let skew = lane.state.value.clock.skew
        CommandWriter.append(bounds.low, into: &writer)
        CommandWriter.append(bounds.middle, into: &writer)
        CommandWriter.append(bounds.high, into: &writer)
        CommandWriter.append(skew.low, into: &writer)
        CommandWriter.append(skew.high, into: &writer)
        CommandWriter.append(holderName.readable, into: &writer)
        CommandWriter.append(store.value.calls, into: &writer)
        CommandWriter.append(Int64(shared.liveNodes * rows.workers), into: &writer)
        CommandWriter.append(recallChannel.readable, into: &writer)
        let history = isRestoring ? lane.state.value.history : []
        CommandWriter.append(history.span, into: &writer)
        for position in range {
            let account = account(at: Int(lane.state.value.queue[position]))
            writeItem(account, lane, into: &writer)
            lane.state.value.debits.append(Int32(account.index))
        }
        connection.output.commit(writer)
        lane.state.value.pending.append(
            PendingCommand(
                kind: .take, number: Int32(range.count), sentMicroseconds: now,
                skew: skew.low, call: store.value.calls))
    }

    private func writeItem(_ account: Slot<Account>, _ lane: StoreLane, into writer: inout ByteWriter) {
        let windows = account.value.debitedPlan
        CommandWriter.append(Int64(windows.count), into: &writer)
        CommandWriter.append(Int64(account.value.debited.count), into: &writer)
        CommandWriter.append(account.value.debitedCost, into: &writer)
        let counts = reportCounts(account)
        let lease = account.value.isLeasing ? lease(of: account) : nil
        CommandWriter.append(lease?.value.call ?? -1, into: &writer)
        CommandWriter.append(account.value.wanted, into: &writer)
        CommandWriter.append(lease == nil ? 0 : Lease.length(of: windows), into: &writer)
        CommandWriter.append(Int64(counts.spent), into: &writer)
        CommandWriter.append(Int64(counts.unasked), into: &writer)
        CommandWriter.append(Int64(counts.lost), into: &writer)
        let told = account.value.toldMicroseconds
        if let lease {
            lease.value.beginReport(call: store.value.calls)
            if lease.value.isOpen {
                for index in 0..<lease.value.spent.count {
                    writePair(lease.value.spent[index], lane, into: &writer)
                }
            }
            writeUnasked(lease.value.unasked, lane, after: told, into: &writer)
            if lease.value.isOpen, told > 0 {
                writeUnasked(lease.value.spent, lane, after: told, into: &writer)
            }
        }
        if counts.lost > 0, let lost = store.value.restored.removeValue(forKey: Int32(account.index)) {
            for entry in lost { writePair(entry, lane, into: &writer) }
        }
        for index in 0..<windows.count {
            CommandWriter.append(windows.windows[index].limit, into: &writer)
            CommandWriter.append(windows.windows[index].lengthMicroseconds, into: &writer)
        }
    }

    /// How many pairs a debit tells: what was spent of the lease; what was spent without asking, and in a
    /// history that began with a loss what was spent of a lease of which Redis may not know, unless it has
    /// been told already; and what Redis may have lost.
    private func reportCounts(_ account: Slot<Account>) -> (spent: Int, unasked: Int, lost: Int) {
        let lost = account.value.isRestoring ? store.value.restored[Int32(account.index)]?.count ?? 0 : 0
        guard account.value.isLeasing, let lease = lease(of: account) else { return (0, 0, lost) }
        let told = account.value.toldMicroseconds
        var unasked = lease.value.unasked.count(after: told)
        if lease.value.isOpen, told > 0 { unasked += lease.value.spent.count(after: told) }
        return (lease.value.isOpen ? lease.value.spent.count : 0, unasked, lost)
    }

    /// What is told again carries the number of the call that told it first.
    private func writeUnasked(
        _ log: SpentLog, _ lane: StoreLane, after told: Int64, into writer: inout ByteWriter
    ) {
        for index in 0..<log.count where log[index].at > told {
            writePair(log[index], lane, into: &writer)
            CommandWriter.append(log[index].call > 0 ? log[index].call : store.value.calls, into: &writer)
        }
    }

    /// Instants are told as the latest that they can have been on Redis's clock; the script takes none for
    /// later than its own.
    private func writePair(_ entry: SpentLog.Entry, _ lane: StoreLane, into writer: inout ByteWriter) {
        let clock = lane.state.value.clock
        CommandWriter.append(clock.isKnown ? clock.latest(entry.at) : 9_000_000_000_000_000, into: &writer)
        CommandWriter.append(entry.permits, into: &writer)
    }

    func account(at index: Int) -> Slot<Account> {
        guard let account = accounts.occupant(at: index) else {
            preconditionFailure("a queued account is held")
        }
        return account
    }

    /// Moves the calls at the front that share plan and cost into the debit, and decides about the lease.
    private func gatherDebit(_ account: Slot<Account>) {
        let before = account.value.debitedPlan
        account.value.debitedPlan = LimitPlan([])
        account.value.debitedCost = 1
        // What is owed belongs to the windows that it was taken from, and comes first. While more is owed for
        // other windows nobody asks: some of these may be among them.
        let owing = owingLease(of: account)
        if let owing { account.value.debitedPlan = owing.value.plan }
        let mayAsk = owing.map { $0.value.next < 0 } ?? true
        // Those who only look come first when the last answer was not about their windows: no later than with
        // the next debit, and no oftener than with every other.
        if owing == nil, account.value.inspecting.count > 0,
            account.value.seenPlan != account.value.inspectedPlan
        {
            account.value.debitedPlan = account.value.inspectedPlan
        }
        while mayAsk, account.value.waiting.count > 0 {
            let reference = waiters[Int(account.value.waiting.head)].reference
            guard let exchange = exchanges.lookup(reference), !exchange.value.isDead else {
                _ = removeWaiter(from: &account.value.waiting)
                continue
            }
            let cost = exchange.value.cost
            let windows = key(at: exchange.value.key).value.plan
            if account.value.debitedPlan.count == 0 { account.value.debitedPlan = windows }
            if account.value.debited.count == 0 { account.value.debitedCost = cost }
            let total = Int64(account.value.debited.count + 1) * cost
            guard windows == account.value.debitedPlan, cost == account.value.debitedCost,
                account.value.debited.count == 0 || total <= TakeScript.permitsMax
            else { break }
            _ = removeWaiter(from: &account.value.waiting)
            _ = addWaiter(reference, to: &account.value.debited)
        }
        if account.value.debited.count == 0 { account.value.debitedCost = 1 }
        if account.value.debitedPlan.count == 0, account.value.inspecting.count > 0 {
            account.value.debitedPlan = account.value.inspectedPlan
        }
        // Nobody waits: what no longer counts in the windows of the last debit is dropped.
        if account.value.debitedPlan.count == 0 { account.value.debitedPlan = before }
        prepareLease(account)
    }

    func key(at index: Int32) -> Slot<ActiveKey> {
        guard let key = keys.occupant(at: Int(index)) else {
            preconditionFailure("a call holds its key")
        }
        return key
    }

    /// `gateway:limit:{account}:60s`: the braces keep what belongs to an account in one slot of a cluster.
    private func writeName(_ account: Slot<Account>, _ window: Window, into writer: inout ByteWriter) {
        let isWhole = window.lengthMicroseconds % 1_000_000 == 0
        let length = isWhole ? window.lengthMicroseconds / 1_000_000 : window.lengthMicroseconds / 1_000
        var digits = 1
        var rest = length
        while rest >= 10 {
            rest /= 10
            digits += 1
        }
        writer.append(byte: 0x24)
        writer.append(
            decimal: Int64(
                storePrefix.count + 7 + account.value.name.count + 2 + digits + (isWhole ? 1 : 2)))
        writer.append("\r\n")
        writer.append(storePrefix.readable)
        writer.append("limit:{")
        writer.append(account.value.name.readable)
        writer.append("}:")
        writer.append(decimal: length)
        writer.append(isWhole ? "s\r\n" : "ms\r\n")
    }

    // MARK: Accounts

    /// Gives a key its account's slot.
    func attachAccount(_ key: Slot<ActiveKey>, _ name: String) {
        guard hasStore else { return }
        let hash = key.value.accountHash
        if let index = store.value.accounts[hash] {
            account(at: Int(index)).value.holders += 1
            key.value.accountSlot = index
            return
        }
        let slot = isCluster ? ClusterSlot.of(Array(name.utf8).span) : 0
        var block = Block.constant(name)
        guard let account = accounts.allocate(Account(hash: hash, name: block, slot: slot, holders: 1)) else {
            block.deallocate()
            return
        }
        store.value.accounts[hash] = Int32(account.index)
        key.value.accountSlot = Int32(account.index)
    }

    func detachAccount(_ key: Slot<ActiveKey>) {
        guard key.value.accountSlot >= 0 else { return }
        releaseAccount(account(at: Int(key.value.accountSlot)))
    }

    func releaseAccount(_ account: Slot<Account>) {
        account.value.holders -= 1
        guard account.value.holders == 0 else { return }
        store.value.accounts[account.value.hash] = nil
        freeLease(of: account)
        account.value.name.deallocate()
        accounts.free(account)
    }
}
