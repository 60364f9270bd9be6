import HTTPWire
import Keys
import Limits
import Reactor

/// What a worker keeps of a key it serves. Freed when the cache has let go of it and its last call has ended.
///
/// Plain data only: Swift 6.3's optimizer copies a noncopyable value with references in it where it may not,
/// and traps. What it was compiled from stands in `Worker.keyRecords`.
struct ActiveKey: ~Copyable {
    var digest: Digest256
    /// Generation of the configuration that it was compiled for.
    var generation: UInt32
    /// `X-Gateway-…` lines as they go to the upstream.
    var identity: Block
    /// Where id, account and tier stand in `identity`, for the log.
    var id: Range<Int>
    var account: Range<Int>
    var tierRange: Range<Int>
    var tier: Int32
    var grants: ScopeGrants
    /// First microsecond of wall time at which the key is over; `Int64.max` is never.
    var expiresAtMicroseconds: Int64
    /// Why the key is refused although its record exists; `.none` when it is good.
    var refusal: Reason
    /// Hash of the account under the process's key: the account's name in all tables.
    var accountHash: Fingerprint
    /// The same for `Balance.hash`: every gateway's is the same.
    var balanceHash: UInt64
    /// Slot of the account, -1 without limits.
    var accountSlot: Int32
    var plan: LimitPlan
    /// Where this process keeps the account's windows.
    var windowHint: Int32 = -1
    var policy: PolicyText
    /// When its use was last noted, seconds of wall time.
    var seenSeconds: Int64 = 0
    /// Whether another key replaces this one: then its calls are counted, so that its owner sees who still
    /// uses it.
    var isReplaced: Bool
    /// Calls since they were last noted.
    var callsUnnoted: Int64 = 0
    /// The cache's own hold and one per call under way.
    var holders: Int32 = 1
    /// The cache has let go of it while calls were under way: it is counted in `StoreState.orphans`.
    var isOrphan = false
    /// The round of re-examination that its calls have been through, see `Worker.sweepCalls`.
    var round: UInt32
}
