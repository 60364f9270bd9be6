import Configuration
import HTTPWire
import Keys
import Limits
import Reactor
import Redis

// Limits in Redis. The calls of one turn on one account are one debit; while it is under way, later calls
// wait and make up the next one. All debits of a turn go out in one script call for up to 64 accounts. An
// account that Redis has declared empty is refused here until the instant that Redis named.

extension Worker {
    func limitRemotely(
        _ slot: Slot<Downstream>, headCount: Int, route: Int, _ key: Slot<ActiveKey>
    ) -> Bool {
        let cost = plan.routes[route].cost
        let known = key.value.accountSlot >= 0 ? accounts.occupant(at: Int(key.value.accountSlot)) : nil
        guard isStoreReady(for: known) else {
            return limitDegraded(slot, headCount: headCount, route: route, key, cost)
        }
        guard let account = known else {
            return refuse(slot, .overloaded, headCount: headCount, route: route, key: key)
        }
        let now = state.value.nowMicroseconds
        if now < account.value.deniedUntilMicroseconds, cost >= account.value.deniedCost,
            account.value.deniedPlan == key.value.plan
        {
            let decision = account.value.deniedDecision
            countDecision(decision, key: key, isDegraded: false)
            return refuseLimited(slot, headCount: headCount, route: route, key, decision, now)
        }
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

    private func enqueue(_ account: Slot<Account>) {
        guard !account.value.isQueued, account.value.debited.count == 0 else { return }
        guard let lane = lane(of: account) ?? firstLane else { return }
        account.value.isQueued = true
        account.value.holders += 1
        lane.state.value.queue.append(Int32(account.index))
    }

    // MARK: Asking

    /// Writes the debits of this turn.
    func writeDebits(_ lane: StoreLane) {
        guard !lane.state.value.queue.isEmpty else { return }
        if lane.state.value.needsScript { loadScript(lane) }
        var start = 0
        while start < lane.state.value.queue.count {
            var end = min(lane.state.value.queue.count, start + TakeScript.itemsMax)
            // 64 items with four windows each, names of 128 bytes.
            guard lane.connection.output.freeCount > 128 * 1_024, lane.state.value.pending.freeCount > 1,
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
        for position in range {
            let account = account(at: Int(lane.state.value.queue[position]))
            account.value.isQueued = false
            if account.value.firstSentMicroseconds == 0 {
                account.value.firstSentMicroseconds = state.value.nowMicroseconds
            }
            gatherDebit(account)
            windows += debitPlan(account).count
        }
        var writer = ByteWriter(connection.output)
        CommandWriter.begin(5 + windows + 3 * range.count + 2 * windows, into: &writer)
        CommandWriter.append("EVALSHA", into: &writer)
        CommandWriter.append(connection.scriptName.readable, into: &writer)
        CommandWriter.append(Int64(windows), into: &writer)
        for position in range {
            let account = account(at: Int(lane.state.value.queue[position]))
            let plan = debitPlan(account)
            for index in 0..<plan.count { writeName(account, plan.windows[index], into: &writer) }
        }
        let bounds = redisClockBounds(lane)
        CommandWriter.append(bounds.low, into: &writer)
        CommandWriter.append(bounds.high, into: &writer)
        for position in range {
            let account = account(at: Int(lane.state.value.queue[position]))
            let plan = debitPlan(account)
            CommandWriter.append(Int64(plan.count), into: &writer)
            CommandWriter.append(Int64(account.value.debited.count), into: &writer)
            CommandWriter.append(account.value.debitedCost, into: &writer)
            for index in 0..<plan.count {
                CommandWriter.append(plan.windows[index].limit, into: &writer)
                CommandWriter.append(plan.windows[index].lengthMicroseconds, into: &writer)
            }
            lane.state.value.debits.append(Int32(account.index))
        }
        connection.output.commit(writer)
        lane.state.value.pending.append(
            PendingCommand(
                kind: .take, number: Int32(range.count), sentMicroseconds: MonotonicClock.nowMicroseconds()))
    }

    func account(at index: Int) -> Slot<Account> {
        guard let account = accounts.occupant(at: index) else {
            preconditionFailure("a queued account is held")
        }
        return account
    }

    /// Moves the calls at the front that share plan and cost into the debit.
    private func gatherDebit(_ account: Slot<Account>) {
        account.value.debitedKey = -1
        while account.value.waiting.count > 0 {
            let reference = waiters[Int(account.value.waiting.head)].reference
            guard let exchange = exchanges.lookup(reference), !exchange.value.isDead else {
                _ = removeWaiter(from: &account.value.waiting)
                continue
            }
            let cost = exchange.value.cost
            if account.value.debitedKey < 0 {
                account.value.debitedKey = exchange.value.key
                account.value.debitedCost = cost
                // The plan is read again when the answer comes: the key stays until then.
                key(at: exchange.value.key).value.holders += 1
            } else {
                let first = key(at: account.value.debitedKey)
                let total = Int64(account.value.debited.count + 1) * cost
                guard cost == account.value.debitedCost, total <= TakeScript.permitsMax,
                    first.value.plan == key(at: exchange.value.key).value.plan
                else { return }
            }
            _ = removeWaiter(from: &account.value.waiting)
            _ = addWaiter(reference, to: &account.value.debited)
        }
    }

    func key(at index: Int32) -> Slot<ActiveKey> {
        guard let key = keys.occupant(at: Int(index)) else {
            preconditionFailure("a call holds its key")
        }
        return key
    }

    /// The plan of a debit; without windows when all who wanted it have gone.
    private func debitPlan(_ account: Slot<Account>) -> LimitPlan {
        account.value.debitedKey < 0 ? LimitPlan([]) : key(at: account.value.debitedKey).value.plan
    }

    /// `gateway:limit:{account}:60s`: the braces keep an account's windows in one slot of a cluster.
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

    /// Bounds on Redis's clock from our own: a step of its wall clock frees nothing early. Drift up to 0.1 %.
    private func redisClockBounds(_ lane: StoreLane) -> (low: Int64, high: Int64) {
        guard lane.state.value.redisMicroseconds > 0 else { return (0, 0) }
        let now = MonotonicClock.nowMicroseconds()
        let since = now - lane.state.value.answeredMicroseconds
        let sinceAsked = now - lane.state.value.askedMicroseconds
        let slack = Int64(plan.configuration.store.timeoutMilliseconds) * 1_000
        return (
            lane.state.value.redisMicroseconds + since - since / 1_000,
            lane.state.value.redisMicroseconds + sinceAsked + sinceAsked / 1_000 + slack
        )
    }

    // MARK: Answers

    func takeDebits(
        _ reply: Reply, _ command: PendingCommand, _ lane: StoreLane, answeredMicroseconds: Int64
    ) {
        guard reply.kind == .array, reply.count >= 1 else {
            debitsFailed(reply, command, lane)
            return
        }
        let instant = reply.element(0).integer
        lane.state.value.redisMicroseconds = instant
        lane.state.value.askedMicroseconds = command.sentMicroseconds
        lane.state.value.answeredMicroseconds = answeredMicroseconds
        var position = 1
        for _ in 0..<command.number {
            guard let index = lane.state.value.debits.removeFirst() else { return }
            let account = account(at: Int(index))
            let plan = debitPlan(account)
            guard reply.count >= position + 2 + 2 * plan.count else {
                shared.report(.error, "store: the script answered something else", every: 60)
                decideWithoutStore(Int(index))
                continue
            }
            takeDebit(account, plan, reply, position, instant, command.sentMicroseconds, answeredMicroseconds)
            position += 2 + 2 * plan.count
        }
    }

    private func takeDebit(
        _ account: Slot<Account>, _ windows: LimitPlan, _ reply: Reply, _ position: Int, _ instant: Int64,
        _ asked: Int64, _ answered: Int64
    ) {
        account.value.firstSentMicroseconds = 0
        let granted = Int(reply.element(position).integer)
        let retry = reply.element(position + 1).integer
        let cost = account.value.debitedCost
        // Redis's instants on our clock. The answer took a while, so its "now" is not after ours: late, never
        // early.
        var decision = Decision(isGranted: true, count: windows.count)
        for index in 0..<windows.count {
            decision.remaining[index] = reply.element(position + 2 + 2 * index).integer
            let reset = reply.element(position + 3 + 2 * index).integer
            decision.resetMicroseconds[index] = reset == 0 ? 0 : answered + (reset - instant)
        }
        decision.retryMicroseconds = retry == 0 ? 0 : answered + (retry - instant)
        if granted > 0, account.value.debitedKey >= 0 {
            // Kept beside Redis, so that an outage finds this node's own window warm.
            shared.windows.spend(
                account: account.value.hash.words, plan: windows, cost: Int64(granted) * cost,
                atMicroseconds: answered)
        }
        noteDenial(account, windows, decision, retry, cost, asked, answered)
        var number = 0
        while let reference = removeWaiter(from: &account.value.debited) {
            number += 1
            guard let exchange = exchanges.lookup(reference), !exchange.value.isDead else { continue }
            var own = decision
            own.isGranted = number <= granted
            for index in 0..<windows.count {
                let later = Int64(max(0, granted - number)) * cost
                own.remaining[index] = max(0, decision.remaining[index] + (own.isGranted ? later : 0))
            }
            conclude(exchange, own, answered, isDegraded: false)
            endStep()
        }
        debitIsOver(account)
    }

    /// Remembers how long an empty account stays empty.
    private func noteDenial(
        _ account: Slot<Account>, _ windows: LimitPlan, _ decision: Decision, _ retry: Int64, _ cost: Int64,
        _ asked: Int64, _ answered: Int64
    ) {
        guard retry > 0 else {
            account.value.deniedUntilMicroseconds = 0
            return
        }
        // Denied while Redis's clock is surely before the instant: from when it was asked, not answered.
        account.value.deniedUntilMicroseconds = asked + (decision.retryMicroseconds - answered)
        account.value.deniedCost = cost
        account.value.deniedPlan = windows
        account.value.deniedDecision = decision
        account.value.deniedDecision.isGranted = false
        for index in 0..<windows.count {
            account.value.deniedDecision.remaining[index] = max(0, decision.remaining[index])
        }
    }

    /// A call has its verdict.
    private func conclude(
        _ exchange: Slot<Exchange>, _ decision: Decision, _ now: Int64, isDegraded: Bool
    ) {
        let key = key(at: exchange.value.key)
        countDecision(decision, key: key, isDegraded: isDegraded)
        exchange.value.hasDecision = true
        exchange.value.decision = decision
        exchange.value.decisionMicroseconds = now
        if decision.isGranted {
            startUpstream(exchange)
        } else {
            failExchange(exchange, .limited, retryAfter: Self.retryAfter(decision, now, key))
        }
    }

    func debitIsOver(_ account: Slot<Account>) {
        let debitedKey = account.value.debitedKey
        account.value.debitedKey = -1
        if account.value.waiting.count > 0 { enqueue(account) }
        if debitedKey >= 0 { releaseKey(at: Int(debitedKey)) }
        releaseAccount(account)
    }

    /// What is not the script's answer is an outage.
    private func debitsFailed(_ reply: Reply, _ command: PendingCommand, _ lane: StoreLane) {
        let text = reply.kind == .error ? reply.text : "the script answered something else"
        shared.report(.warning, "store: \(text)", every: 10)
        for _ in 0..<command.number {
            guard let index = lane.state.value.debits.removeFirst() else { break }
            decideWithoutStore(Int(index))
        }
        lane.connection.close(text)
    }

    // MARK: Without Redis

    /// Decides everything that waits for an account without the store.
    func decideWithoutStore(_ index: Int) {
        let account = account(at: index)
        account.value.isQueued = false
        account.value.firstSentMicroseconds = 0
        account.value.askedLane = -1
        while let reference = removeWaiter(from: &account.value.debited) {
            decideDegraded(reference)
        }
        while let reference = removeWaiter(from: &account.value.waiting) {
            decideDegraded(reference)
        }
        debitIsOver(account)
    }

    private func decideDegraded(_ reference: SlotReference) {
        guard let exchange = exchanges.lookup(reference), !exchange.value.isDead else { return }
        let key = key(at: exchange.value.key)
        let cost = exchange.value.cost
        switch plan.configuration.store.onOutage {
        case .closed: failExchange(exchange, .storeUnavailable, retryAfter: 1)
        case .open:
            metrics.countLimit(.allowed_degraded, tier: Int(key.value.tier))
            metrics.add(.storeDegraded)
            startUpstream(exchange)
        case .local:
            let now = MonotonicClock.nowMicroseconds()
            conclude(exchange, takeLocally(key, cost, now), now, isDegraded: true)
        }
        endStep()
    }

    private func limitDegraded(
        _ slot: Slot<Downstream>, headCount: Int, route: Int, _ key: Slot<ActiveKey>, _ cost: Int64
    ) -> Bool {
        metrics.add(.storeDegraded)
        switch plan.configuration.store.onOutage {
        case .closed:
            return refuse(slot, .storeUnavailable, headCount: headCount, route: route, key: key)
        case .open:
            metrics.countLimit(.allowed_degraded, tier: Int(key.value.tier))
            return admit(slot, headCount: headCount, route: route, key: key)
        case .local:
            let now = MonotonicClock.nowMicroseconds()
            let decision = takeLocally(key, cost, now)
            countDecision(decision, key: key, isDegraded: true)
            guard decision.isGranted else {
                return refuseLimited(slot, headCount: headCount, route: route, key, decision, now)
            }
            return admit(
                slot, headCount: headCount, route: route, key: key, decision: decision,
                decisionMicroseconds: now)
        }
    }

    /// This node's own window, with its share of the limit: what all live nodes admit together stays within
    /// it.
    private func takeLocally(_ key: Slot<ActiveKey>, _ cost: Int64, _ now: Int64) -> Decision {
        var share = key.value.plan
        let nodes = Int64(shared.liveNodes)
        if nodes > 1 {
            for index in 0..<share.count { share.windows[index].limit /= nodes }
        }
        return shared.windows.take(
            account: key.value.accountHash.words, plan: share, cost: cost, nowMicroseconds: now)
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
        guard
            let account = accounts.allocate(
                Account(hash: hash, name: .constant(name), slot: slot, holders: 1))
        else { return }
        store.value.accounts[hash] = Int32(account.index)
        key.value.accountSlot = Int32(account.index)
    }

    func detachAccount(_ key: Slot<ActiveKey>) {
        guard key.value.accountSlot >= 0 else { return }
        releaseAccount(account(at: Int(key.value.accountSlot)))
    }

    private func releaseAccount(_ account: Slot<Account>) {
        account.value.holders -= 1
        guard account.value.holders == 0 else { return }
        store.value.accounts[account.value.hash] = nil
        account.value.name.deallocate()
        accounts.free(account)
    }
}
