import Configuration
import HTTPWire
import Keys
import Limits
import Reactor
import Redis

// What the script has answered: verdicts for the calls that waited, a new lease, and how long an empty
// account stays empty.

extension Worker {
    /// How long a refusal waits for leases of others to come back, and how often.
    private static let delayMicroseconds: Int64 = 10_000
    private static let delaysMax: Int32 = 2
    /// While others hold permits on lease, an empty account may have some at any time.
    private static let denialOnLeaseMicroseconds: Int64 = 20_000
    /// How long what cannot be read is left alone.
    private static let unreadableMicroseconds: Int64 = 1_000_000

    func takeDebits(
        _ reply: Reply, _ command: PendingCommand, _ lane: StoreLane, answeredMicroseconds: Int64
    ) {
        guard reply.kind == .array, reply.count >= 2, reply.element(1).kind == .integer else {
            debitsFailed(reply, command, lane)
            return
        }
        store.value.epoch = shared.storeClock.epoch
        store.value.hasStepped = noteTime(reply.element(1).integer, command, lane, answeredMicroseconds)
        // Redis has reckoned that the answer would be here by now, and may have written down too early what
        // it grants: as good as no answer.
        let isReckoned = reply.element(0).integer != reply.element(1).integer &- command.skew
        let isLate = answeredMicroseconds - command.sentMicroseconds > rows.storeTimeoutMicroseconds
        var position = 2
        for _ in 0..<command.number {
            guard let index = lane.state.value.debits.removeFirst() else { return }
            let account = account(at: Int(index))
            if isReckoned, isLate {
                position += 5 + 2 * account.value.debitedPlan.count
                decideWithoutStore(Int(index))
                continue
            }
            let count = 5 + 2 * account.value.debitedPlan.count
            guard reply.count >= position + count else {
                shared.report(.error, "store: the script answered something else", every: 60)
                decideWithoutStore(Int(index))
                continue
            }
            takeDebit(account, command, lane, reply, position, answeredMicroseconds)
            position += count
        }
    }

    /// - Returns: whether the clock has been set, or so it seems.
    private func noteTime(
        _ time: Int64, _ command: PendingCommand, _ lane: StoreLane, _ answered: Int64
    ) -> Bool {
        var step: Int64 = 0
        if isCluster {
            step = lane.state.value.clock.observe(time, asked: command.sentMicroseconds, answered: answered)
        } else {
            (lane.state.value.clock, step) = shared.storeClock.observe(
                time, asked: command.sentMicroseconds, answered: answered)
        }
        guard step != 0 else { return false }
        if step > TakeScript.stepMaxMicroseconds { shared.generations.noteLoss() }
        // Whoever joins now has to know.
        shared.exposures.wakeup.signal()
        shared.report(
            .error, "store: Redis's clock has been set by \(step / 1_000) ms; limits go on as if it had not",
            every: 10)
        return true
    }

    private func takeDebit(
        _ account: Slot<Account>, _ command: PendingCommand, _ lane: StoreLane, _ reply: Reply,
        _ position: Int, _ answered: Int64
    ) {
        account.value.firstSentMicroseconds = 0
        account.value.isRestoring = false
        let windows = account.value.debitedPlan
        let permitted = Int(reply.element(position).integer)
        guard permitted >= 0 else {
            windowsAreUnreadable(account)
            return
        }
        let retry = reply.element(position + 1).integer
        let othersHold = reply.element(position + 2).integer > 0
        let clock = lane.state.value.clock
        var decision = Decision(isGranted: true, count: windows.count)
        for index in 0..<windows.count {
            decision.remaining[index] = reply.element(position + 5 + 2 * index).integer
            let reset = reply.element(position + 6 + 2 * index).integer
            decision.resetMicroseconds[index] = reset == 0 ? 0 : clock.local(reset)
        }
        decision.retryMicroseconds = retry == 0 ? 0 : clock.local(retry)
        noteHeld(account, decision, hasSpent: permitted > 0, answered)
        let base = decision
        let granted = writeDown(account, permitted, &decision, answered)
        let leased = reply.element(position + 3).integer
        noteLease(
            account, lane, call: command.call, permits: leased, end: reply.element(position + 4).integer,
            base, answered)
        // What is on lease here is the account's to spend.
        for index in 0..<windows.count { decision.remaining[index] &+= leased }
        let isShort = permitted < Int(account.value.debited.count)
        let mayWait = isShort && mayWait(account, retry, othersHold)
        if !isShort { account.value.delays = 0 }
        noteSeen(account, windows, decision, answered)
        account.value.deniedCost = account.value.debitedCost
        account.value.deniedEpoch = store.value.epoch
        account.value.deniedUntilMicroseconds =
            mayWait || store.value.hasStepped ? 0 : denialEnd(retry, othersHold, clock, answered)
        if account.value.inspectedPlan == windows { endInspections(account) }
        conclude(account, decision, granted, answered, sparingRest: mayWait)
        debitIsOver(account)
    }

    /// Another program has written where the account's windows belong: nobody else is concerned.
    private func windowsAreUnreadable(_ account: Slot<Account>) {
        let name = String(copying: account.value.name.readable)
        shared.report(
            .error,
            "store: what stands under limit:{\(name)} is not a window; its calls are decided without Redis",
            every: 60)
        account.value.unreadableUntilMicroseconds =
            state.value.nowMicroseconds + Self.unreadableMicroseconds
        decideWithoutStore(account.index)
    }

    /// Whether calls that found nothing wait for the leases of others, which have been called back.
    private func mayWait(_ account: Slot<Account>, _ retry: Int64, _ othersHold: Bool) -> Bool {
        guard othersHold, retry > 0, account.value.delays < Self.delaysMax else {
            account.value.delays = 0
            return false
        }
        return true
    }

    /// Gives the calls of a debit their verdicts.
    ///
    /// - Parameter sparingRest: those without a permit ask again a moment later.
    private func conclude(
        _ account: Slot<Account>, _ decision: Decision, _ granted: Int, _ answered: Int64, sparingRest: Bool
    ) {
        let cost = account.value.debitedCost
        var number = 0
        while account.value.debited.count > 0 {
            if number == granted, sparingRest { break }
            number += 1
            guard let reference = removeWaiter(from: &account.value.debited),
                let exchange = exchanges.lookup(reference), !exchange.value.isDead
            else { continue }
            var own = decision
            own.isGranted = number <= granted
            for index in 0..<decision.count {
                let later = Int64(max(0, granted - number)) * cost
                own.remaining[index] = max(0, decision.remaining[index] + (own.isGranted ? later : 0))
            }
            conclude(exchange, own, answered, isDegraded: false)
            endStep()
        }
        guard sparingRest, account.value.debited.count > 0 else { return }
        putBack(&account.value.debited, before: &account.value.waiting)
        account.value.delays += 1
        account.value.delayedUntilMicroseconds = state.value.nowMicroseconds + Self.delayMicroseconds
        account.value.holders += 1
        store.value.delayed.append(Int32(account.index))
    }

    /// Until when, on our clock, an account is surely as empty as the answer said; 0 when it is not empty.
    private func denialEnd(
        _ retry: Int64, _ othersHold: Bool, _ clock: StoreClock, _ answered: Int64
    ) -> Int64 {
        guard retry > 0 else { return 0 }
        let end = clock.surelyBefore(retry)
        return othersHold ? min(end, answered + Self.denialOnLeaseMicroseconds) : end
    }

    /// Remembers what Redis has said of an account.
    private func noteSeen(
        _ account: Slot<Account>, _ windows: LimitPlan, _ decision: Decision, _ answered: Int64
    ) {
        account.value.seenPlan = windows
        account.value.seenMicroseconds = answered
        account.value.seenDecision = decision
        account.value.seenDecision.isGranted = false
        for index in 0..<windows.count {
            account.value.seenDecision.remaining[index] = max(0, decision.remaining[index])
        }
    }

    /// A call has its verdict.
    func conclude(
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

    /// The call about an account is over: whoever came meanwhile is next.
    func debitIsOver(_ account: Slot<Account>) {
        account.value.isInFlight = false
        serveFromLease(account)
        if account.value.waiting.count > 0 || account.value.inspecting.count > 0 { enqueue(account) }
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
}
