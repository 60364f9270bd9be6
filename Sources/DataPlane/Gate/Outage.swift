import Configuration
import HTTPWire
import Keys
import Limits
import Reactor
import Redis

// Limits while Redis is away. What this node admits meanwhile is written down and told to Redis when it is
// back, so that its windows count everything again.

extension Worker {
    /// Decides everything that waits for an account without the store.
    func decideWithoutStore(_ index: Int) {
        let account = account(at: index)
        account.value.isQueued = false
        account.value.isInFlight = false
        debitIsLost(account)
        account.value.firstSentMicroseconds = 0
        account.value.askedLane = -1
        while let reference = removeWaiter(from: &account.value.debited) {
            decideDegraded(reference)
        }
        while let reference = removeWaiter(from: &account.value.waiting) {
            decideDegraded(reference)
        }
        endInspections(account)
        debitIsOver(account)
    }

    private func decideDegraded(_ reference: SlotReference) {
        guard let exchange = exchanges.lookup(reference), !exchange.value.isDead else { return }
        let key = key(at: exchange.value.key)
        let cost = exchange.value.cost
        switch rows.onOutage {
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

    func limitDegraded(
        _ slot: Slot<Downstream>, headCount: Int, route: Int, _ key: Slot<ActiveKey>, _ cost: Int64
    ) -> Bool {
        metrics.add(.storeDegraded)
        switch rows.onOutage {
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
        let decision = shared.windows.take(
            account: key.value.accountHash.words, plan: share(of: key.value.plan), cost: cost,
            nowMicroseconds: now)
        if decision.isGranted { noteUnasked(key, cost, now) }
        return decision
    }
}
