import Synchronization

/// Counts failed authentications by address, so that guessing keys is slow for one address and harmless to
/// others.
///
/// Safe to use from any thread; only calls that fail touch it.
package final class FailureLimiter: Sendable {
    private let table: WindowTable
    private let plan: LimitPlan

    /// - Parameters:
    ///   - limitPerMinute: failures an address may make in any minute; 0 turns the limit off.
    ///   - addresses: most addresses followed at once.
    package init(limitPerMinute: Int64, addresses: Int) {
        table = WindowTable(accounts: addresses)
        let window = Window(limit: limitPerMinute, lengthMicroseconds: 60_000_000)
        plan = LimitPlan(limitPerMinute > 0 ? [window] : [])
    }

    /// Counts one failure.
    ///
    /// - Parameter prefix: the address, IPv6 cut to its /64.
    /// - Returns: 0 when the address may still fail, else when it may again.
    package func recordFailure(prefix: (UInt64, UInt64), nowMicroseconds: Int64) -> Int64 {
        guard plan.count > 0 else { return 0 }
        let decision = table.take(
            account: Self.spread(prefix), plan: plan, cost: 1, nowMicroseconds: nowMicroseconds)
        return decision.isGranted ? 0 : decision.retryMicroseconds
    }

    /// Whether an address has failed too often; counts nothing.
    package func isBlocked(prefix: (UInt64, UInt64), nowMicroseconds: Int64) -> Bool {
        guard plan.count > 0 else { return false }
        return !table.inspect(
            account: Self.spread(prefix), plan: plan, cost: 1, nowMicroseconds: nowMicroseconds
        ).isGranted
    }

    /// Addresses that share their low bits would share a shard. One to one: no address counts for another.
    private static func spread(_ prefix: (UInt64, UInt64)) -> (UInt64, UInt64) {
        let both = prefix.0 ^ prefix.1
        let mixed = (both ^ both >> 32) &* 0x9E37_79B9_7F4A_7C15
        return (mixed ^ mixed >> 32, prefix.1)
    }
}
