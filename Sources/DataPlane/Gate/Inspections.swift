import Configuration
import Keys
import Limits
import Reactor

// Answers to a valid key carry its limits even where nothing is spent: no such route, a scope that is
// missing, a body that is too large. Without a store they are at hand; Redis is asked, unless it was a moment
// ago.

extension Worker {
    /// How long what Redis has said is told again.
    private static let freshMicroseconds: Int64 = 1_000_000

    /// Has a refusal wait until Redis has said what is left of the account's limits.
    ///
    /// - Returns: whether it does; the head is read once more then.
    func awaitLimits(_ slot: Slot<Downstream>, _ key: Slot<ActiveKey>) -> Bool {
        guard hasStore, !slot.value.hasSeenLimits, key.value.plan.count > 0, key.value.accountSlot >= 0,
            let account = accounts.occupant(at: Int(key.value.accountSlot)), isStoreReady(for: account),
            state.value.nowMicroseconds >= account.value.unreadableUntilMicroseconds,
            knownLimits(account, key) == nil,
            addWaiter(slot.reference, to: &account.value.inspecting)
        else { return false }
        account.value.inspectedPlan = key.value.plan
        slot.value.request = .awaitingKey
        enqueue(account)
        return true
    }

    /// Redis has answered, or will not: whoever waited goes on.
    func endInspections(_ account: Slot<Account>) {
        while let reference = removeWaiter(from: &account.value.inspecting) {
            guard let slot = downstreams.lookup(reference), !slot.value.isDead,
                slot.value.request == .awaitingKey
            else { continue }
            slot.value.hasSeenLimits = true
            slot.value.request = .head
            resumeLater(slot)
        }
    }

    /// What is known of a key's limits without spending anything.
    func inspectLimit(_ key: Slot<ActiveKey>, into context: inout RefusalContext) {
        guard key.value.plan.count > 0 else { return }
        if hasStore {
            if key.value.accountSlot >= 0,
                let account = accounts.occupant(at: Int(key.value.accountSlot)),
                let (decision, at) = knownLimits(account, key)
            {
                context.tell(decision, at: at)
                return
            }
            // What this node would decide by while Redis is away.
            guard rows.onOutage == .local else { return }
        }
        let now = MonotonicClock.nowMicroseconds()
        let decision = shared.windows.inspect(
            account: key.value.accountHash.words, plan: hasStore ? share(of: key.value.plan) : key.value.plan,
            cost: 1, nowMicroseconds: now)
        context.tell(decision, at: now)
    }

    private func knownLimits(_ account: Slot<Account>, _ key: Slot<ActiveKey>) -> (Decision, Int64)? {
        let now = MonotonicClock.nowMicroseconds()
        if let lease = lease(of: account), lease.value.plan == key.value.plan,
            let decision = lease.value.look(nowMicroseconds: now)
        {
            return (decision, now)
        }
        let seen = account.value.seenMicroseconds
        guard seen > 0, now - seen < Self.freshMicroseconds, account.value.seenPlan == key.value.plan else {
            return nil
        }
        return (account.value.seenDecision, seen)
    }
}
