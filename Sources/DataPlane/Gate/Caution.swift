import Keys
import Limits
import Reactor

// After a failover, or a restart with less than there was, the windows in Redis may hold fewer permits than
// were granted: a replica has not seen the last writes of the master whose place it takes. For one window
// from then on this node also keeps to its share of the limit by what it has written down itself, as it does
// while Redis is away. One gateway alone is as exact as ever; of M gateways the worst is a window across the
// failover in which one had taken all of the limit before, of which Redis has lost everything:
// N + N (M - 1) / M, and never more than N and what was lost.

extension Worker {
    /// Whether Redis may count less than was granted in these windows.
    @inline(__always)
    func isCautious(_ windows: LimitPlan) -> Bool {
        let since = shared.storeGenerationMicroseconds
        guard since > 0 else { return false }
        return state.value.nowMicroseconds &- since < Self.longest(windows)
    }

    private static func longest(_ windows: LimitPlan) -> Int64 {
        var longest: Int64 = 0
        for index in 0..<windows.count { longest = max(longest, windows.windows[index].lengthMicroseconds) }
        return longest
    }

    /// What this node may admit of a plan without knowing what the others admit.
    func share(of windows: LimitPlan) -> LimitPlan {
        var share = windows
        let nodes = Int64(shared.liveNodes)
        if nodes > 1 {
            for index in 0..<share.count { share.windows[index].limit /= nodes }
        }
        return share
    }

    /// The refusal of a call that is over this node's share while Redis cannot be relied on; nil when there
    /// is none. Redis is not even asked, so that the call costs nothing there.
    func refusalOutOfCaution(_ key: Slot<ActiveKey>, _ cost: Int64, _ now: Int64) -> Decision? {
        guard isCautious(key.value.plan) else { return nil }
        let decision = shared.windows.inspect(
            account: key.value.accountHash.words, plan: share(of: key.value.plan), cost: cost,
            nowMicroseconds: now)
        return decision.isGranted ? nil : decision
    }

    /// Writes down what Redis has granted.
    ///
    /// - Parameter decision: of a call too many; says when one fits again when this node grants fewer.
    /// - Returns: the calls that are granted.
    func writeDown(
        _ account: Slot<Account>, _ granted: Int, _ decision: inout Decision, _ answered: Int64
    ) -> Int {
        guard granted > 0 else { return 0 }
        let windows = account.value.debitedPlan
        let cost = account.value.debitedCost
        guard isCautious(windows) else {
            // Kept beside Redis, so that an outage finds this node's own window warm.
            shared.windows.spend(
                account: account.value.hash.words, plan: windows, cost: Int64(granted) * cost,
                atMicroseconds: answered)
            return granted
        }
        let share = share(of: windows)
        for number in 0..<granted {
            let own = shared.windows.take(
                account: account.value.hash.words, plan: share, cost: cost, nowMicroseconds: answered)
            guard own.isGranted else {
                decision = own
                return number
            }
        }
        return granted
    }
}
