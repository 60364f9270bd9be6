import Keys
import Limits
import Reactor
import Redis

// Permits on lease: an account that asks for many a second takes them from a chunk that Redis has set aside
// for this worker, and Redis hears once in a fraction of a second when they were spent.

extension Worker {
    private static let tickMicroseconds: Int64 = 5_000

    func lease(of account: Slot<Account>) -> Slot<Lease>? {
        account.value.lease < 0 ? nil : leases.occupant(at: Int(account.value.lease))
    }

    /// Spends permits of a lease, when there is one for these windows and it is not over.
    @inline(__always)
    func takeFromLease(
        _ account: Slot<Account>, _ key: Slot<ActiveKey>, _ cost: Int64
    ) -> (Decision, Int64)? {
        guard account.value.lease >= 0, let lease = lease(of: account), lease.value.left >= cost,
            lease.value.plan == key.value.plan
        else { return nil }
        // Not the turn's clock: the lease may have ended since.
        let now = MonotonicClock.nowMicroseconds()
        guard let decision = lease.value.take(cost, nowMicroseconds: now) else { return nil }
        account.value.demand.note(cost, nowMicroseconds: now)
        shared.windows.spend(
            account: account.value.hash.words, plan: key.value.plan, cost: cost, atMicroseconds: now)
        return (decision, now)
    }

    /// Calls that waited while a lease was on its way.
    func serveFromLease(_ account: Slot<Account>) {
        guard let lease = lease(of: account) else { return }
        while account.value.waiting.count > 0, lease.value.left > 0 {
            let reference = waiters[Int(account.value.waiting.head)].reference
            guard let exchange = exchanges.lookup(reference), !exchange.value.isDead else {
                _ = removeWaiter(from: &account.value.waiting)
                continue
            }
            let cost = exchange.value.cost
            guard let (decision, now) = takeFromLease(account, key(at: exchange.value.key), cost) else {
                return
            }
            _ = removeWaiter(from: &account.value.waiting)
            conclude(exchange, decision, now, isDegraded: false)
            endStep()
        }
    }

    /// Decides whether the debit that is being made up is about a lease, and how many permits it wants.
    func prepareLease(_ account: Slot<Account>) {
        let windows = account.value.debitedPlan
        var lease = lease(of: account)
        let isOwing = lease?.value.isOwing ?? false
        var wanted: Int64 = 0
        // Calls under other windows only: they come next, once nothing is owed for these. So does what else
        // is owed.
        let othersWait =
            account.value.debited.count == 0 && account.value.waiting.count > 0
            || (lease.map { $0.value.next >= 0 } ?? false)
            || account.value.inspecting.count > 0 && account.value.inspectedPlan != windows
        let isInDemand = account.value.debited.count > 0 || (lease.map { $0.value.spent.count > 0 } ?? false)
        if isInDemand, !othersWait, !account.value.isRecalled, windows.count > 0, !isCautious(windows) {
            wanted = account.value.demand.wanted(
                length: Lease.length(of: windows), cost: account.value.debitedCost)
        }
        account.value.isRecalled = false
        if wanted > 0, lease == nil { lease = makeLease(account, windows) }
        if let lease, !isOwing, lease.value.plan != windows { lease.value.rebase(windows) }
        account.value.isLeasing = lease != nil && (isOwing || wanted > 0)
        account.value.wanted = account.value.isLeasing ? wanted : 0
    }

    private func makeLease(_ account: Slot<Account>, _ windows: LimitPlan) -> Slot<Lease>? {
        guard let lease = leases.allocate(Lease(windows)) else { return nil }
        account.value.lease = Int32(lease.index)
        return lease
    }

    /// The answer to a debit that was about a lease.
    func noteLease(
        _ account: Slot<Account>, _ lane: StoreLane, call: Int64, permits: Int64, end: Int64,
        _ base: Decision, _ answered: Int64
    ) {
        guard account.value.isLeasing, let lease = lease(of: account) else { return }
        account.value.isLeasing = false
        lease.value.renew(
            permits: permits, call: call, nowMicroseconds: answered,
            lastMicroseconds: permits > 0 ? lane.state.value.clock.surelyBefore(end) : answered, base: base)
        if lease.value.isOwing { keep(account) }
    }

    /// The debit under way has not been answered.
    func debitIsLost(_ account: Slot<Account>) {
        restoringIsLost(account)
        guard account.value.isLeasing else { return }
        account.value.isLeasing = false
        if let lease = lease(of: account) {
            lease.value.answerIsLost()
            if lease.value.isOwing { keep(account) }
        }
    }

    /// Something was spent without asking Redis: it is told as soon as it can be.
    func noteUnasked(_ key: Slot<ActiveKey>, _ cost: Int64, _ now: Int64) {
        guard key.value.accountSlot >= 0, let account = accounts.occupant(at: Int(key.value.accountSlot)),
            let lease = lease(of: account, owingFor: key.value.plan)
        else { return }
        lease.value.spendUnasked(cost, nowMicroseconds: now)
        keep(account)
    }

    /// Where it is noted what is owed for these windows. What other keys of the account have spent, or this
    /// one before its limits changed, is owed for others, and those alone are told of it.
    private func lease(of account: Slot<Account>, owingFor windows: LimitPlan) -> Slot<Lease>? {
        guard var lease = lease(of: account) else { return makeLease(account, windows) }
        if lease.value.plan != windows, !lease.value.isOwingAtAll, !lease.value.isReporting {
            lease.value.rebase(windows)
        }
        while lease.value.plan != windows {
            guard lease.value.next < 0 else {
                lease = owed(at: lease.value.next)
                continue
            }
            // Without room other windows hear of it: better than none.
            guard let last = leases.allocate(Lease(windows)) else { break }
            lease.value.next = Int32(last.index)
            lease = last
        }
        return lease
    }

    private func owed(at index: Int32) -> Slot<Lease> {
        guard let lease = leases.occupant(at: Int(index)) else {
            preconditionFailure("what is owed is kept until it is told")
        }
        return lease
    }

    /// What the next debit has to tell; nil when nothing is owed.
    func owingLease(of account: Slot<Account>) -> Slot<Lease>? {
        guard let lease = lease(of: account), lease.value.isOwingAtAll else { return nil }
        guard !lease.value.isOwing else { return lease }
        account.value.lease = lease.value.next
        leases.free(lease)
        return owed(at: account.value.lease)
    }

    /// Forgets the lease of an account that goes.
    func freeLease(of account: Slot<Account>) {
        while let lease = lease(of: account) {
            account.value.lease = lease.value.next
            leases.free(lease)
        }
    }

    private func keep(_ account: Slot<Account>) {
        guard !account.value.isKept else { return }
        account.value.isKept = true
        account.value.holders += 1
        store.value.leased.append(Int32(account.index))
    }

    /// Somebody was refused while permits of this account were out on lease.
    func recall(_ hash: Fingerprint) {
        guard let index = store.value.accounts[hash] else { return }
        let account = account(at: Int(index))
        guard let lease = lease(of: account), lease.value.isOpen, !lease.value.isReporting else { return }
        account.value.isRecalled = true
        enqueue(account)
    }

    /// Reports leases that are about to end and what was spent without asking, and lets those ask again who
    /// waited for leases of others.
    func leaseTick() {
        let now = state.value.nowMicroseconds
        guard now >= store.value.nextLeaseTickMicroseconds else { return }
        store.value.nextLeaseTickMicroseconds = now + Self.tickMicroseconds
        if !store.value.delayed.isEmpty { endDelays(now) }
        guard !store.value.leased.isEmpty else { return }
        var kept = 0
        for position in 0..<store.value.leased.count {
            let index = store.value.leased[position]
            let account = account(at: Int(index))
            guard let lease = lease(of: account), lease.value.isOwingAtAll else {
                account.value.isKept = false
                releaseAccount(account)
                continue
            }
            store.value.leased[kept] = index
            kept += 1
            let isDue =
                lease.value.isDue(now) || lease.value.unasked.count > 0 || lease.value.next >= 0
            let isReadable = now >= account.value.unreadableUntilMicroseconds
            if isDue, isReadable, isReady(for: account) { enqueue(account) }
        }
        store.value.leased.removeLast(store.value.leased.count - kept)
    }

    /// Before the worker ends: gives back what is on lease, and tells what was spent without asking. Nobody
    /// else could, and the permits would be missing for a window, or be granted again.
    ///
    /// - Parameter end: when it has to be over, on our clock.
    /// - Returns: whether it takes another turn. It does not where Redis is away.
    func settlesLeases(until end: Int64) -> Bool {
        guard hasStore, MonotonicClock.nowMicroseconds() < end else { return false }
        // What is under way may bring another lease.
        var isAwaited = store.value.lanes.contains { $0.state.value.debits.count > 0 }
        for index in store.value.leased {
            let account = account(at: Int(index))
            guard let lease = lease(of: account), lease.value.isOwingAtAll, let lane = lane(of: account),
                lane.connection.phase != .closed,
                state.value.nowMicroseconds >= account.value.unreadableUntilMicroseconds
            else { continue }
            isAwaited = true
            account.value.isRecalled = true
            if lane.isReady { enqueue(account) }
        }
        flushStore()
        return isAwaited
    }

    private func isReady(for account: Slot<Account>) -> Bool { lane(of: account)?.isReady ?? false }

    private func endDelays(_ now: Int64) {
        let delayed = store.value.delayed
        store.value.delayed.removeAll(keepingCapacity: true)
        for index in delayed {
            let account = account(at: Int(index))
            guard now >= account.value.delayedUntilMicroseconds else {
                store.value.delayed.append(index)
                continue
            }
            if account.value.waiting.count > 0 || account.value.inspecting.count > 0 { enqueue(account) }
            releaseAccount(account)
        }
    }
}
