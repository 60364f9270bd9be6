import Configuration
import Keys
import Limits
import Reactor
import Redis
import TLS

/// A caller or a call that waits for the store, in a list of its own: whoever waits may be gone by the time
/// the answer comes, and then only its reference leads nowhere.
struct Waiter {
    var reference = SlotReference.none
    var next: Int32 = -1
}

/// A queue of waiters.
struct WaiterList {
    var head: Int32 = -1
    var tail: Int32 = -1
    var count: Int32 = 0
}

/// A look-up under way: one for each key, however many callers wait for it.
struct KeyLookup {
    var fingerprint = Fingerprint(low: 0, high: 0)
    var digest = Digest256((0, 0, 0, 0))
    var waiters = WaiterList()
    var isUsed = false
    /// Nobody waits: calls under way use the key, and end if it may no longer be used.
    var isRevisit = false
    /// The record changed while the answer was under way: the answer may be older than the change.
    var isDirty = false
    /// Of the configuration under which it was first asked.
    var generation: UInt32 = 0
    /// Of the first question; redirections and retries end a `timeout` later.
    var startedMicroseconds: Int64 = 0
}

/// What a worker keeps of an account whose windows are in Redis.
struct Account {
    var hash: Fingerprint
    /// The name, as it stands in Redis's keys.
    var name: Block
    /// Place of its windows in a cluster; 0 without one.
    var slot: UInt16 = 0
    /// The lane that the next debit goes to after `ASK`, once; -1 is the slot's owner.
    var askedLane: Int32 = -1
    /// When the debit under way was first sent, however often it had to be sent again; 0 before.
    var firstSentMicroseconds: Int64 = 0
    /// Keys of the account in this worker, and one while a debit is under way.
    var holders: Int32 = 0
    /// Calls that wait for the next debit.
    var waiting = WaiterList()
    /// Calls of the debit under way.
    var debited = WaiterList()
    var debitedCost: Int64 = 1
    /// The windows that the debit under way is about.
    var debitedPlan = LimitPlan([])
    var isQueued = false
    var isInFlight = false
    /// Slot of its lease, -1 when it never had one.
    var lease: Int32 = -1
    /// Whether the debit under way is about the lease, and the permits that it wants.
    var isLeasing = false
    var wanted: Int64 = 0
    /// Somebody was refused while permits were out on lease: the lease goes back.
    var isRecalled = false
    /// Whether it stands in `StoreState.leased`, which then holds it.
    var isKept = false
    /// What stands in Redis in place of its windows could not be read: until then Redis is not asked.
    var unreadableUntilMicroseconds: Int64 = 0
    /// Whether the debit under way tells Redis what it may have lost.
    var isRestoring = false
    /// Up to then Redis has been told in its present history what this process let in; 0 when it need not be.
    var toldMicroseconds: Int64 = 0
    var demand = Demand()
    /// When its permits in Redis have stopped counting, unless more are spent; 0 when it holds none.
    var tidyAtMicroseconds: Int64 = 0
    /// Whether it stands in `StoreState.toTidy`, which then holds it.
    var isToTidy = false
    /// Refusals that were put off because others hold leases, and until when.
    var delays: Int32 = 0
    var delayedUntilMicroseconds: Int64 = 0
    /// Until then every call of this cost is refused here under the plan that was seen last: only time frees
    /// permits.
    var deniedUntilMicroseconds: Int64 = 0
    /// By which of the store's clocks that was reckoned.
    var deniedEpoch = 0
    var deniedCost: Int64 = 0
    /// What Redis said last of its windows, under which plan, and when; 0 before.
    var seenPlan = LimitPlan([])
    var seenDecision = Decision(isGranted: false, count: 0)
    var seenMicroseconds: Int64 = 0
    /// Callers whose refusal, for which nothing is spent, waits to tell the limits.
    var inspecting = WaiterList()
    /// The windows that the last of them is bound by.
    var inspectedPlan = LimitPlan([])
}

/// A command whose reply has not come.
struct PendingCommand {
    enum Kind: UInt8 { case lookup, take, script, asking, probe, roll }

    var kind = Kind.lookup
    /// The look-up's number, or how many items the debit has.
    var number: Int32 = 0
    var sentMicroseconds: Int64 = 0
    /// What was subtracted from Redis's clock where permits are written down.
    var skew: Int64 = 0
    /// Number of a call of the script.
    var call: Int64 = 0
}

/// First in, first out, in a row of fixed length.
struct Ring<Element> {
    private let row: FixedArray<Element>
    private(set) var count = 0
    private var first = 0

    init(repeating element: Element, capacity: Int) {
        row = FixedArray(repeating: element, count: capacity)
    }

    var isFull: Bool { count == row.count }
    var freeCount: Int { row.count - count }

    mutating func append(_ element: Element) {
        precondition(!isFull, "the caller looks before it appends")
        row[(first + count) % row.count] = element
        count += 1
    }

    var oldest: Element? { count > 0 ? row[first] : nil }

    mutating func removeFirst() -> Element? {
        guard count > 0 else { return nil }
        let element = row[first]
        first = (first + 1) % row.count
        count -= 1
        return element
    }
}

/// How far a worker has told a Redis that lost its last writes what it let in.
enum Telling {
    case walking
    /// All has been sent; what was sent before that instant has to be answered.
    case awaiting(sentBefore: Int64)
    case told

    var isOver: Bool { if case .told = self { true } else { false } }
}

/// What changes about one connection.
struct StoreLaneState {
    var pending: Ring<PendingCommand>
    /// Accounts of the debits under way, in order.
    var debits: Ring<Int32>
    /// Accounts with calls that wait for a debit, in order of arrival.
    var queue: [Int32] = []
    /// Look-ups that wait until the connection is up.
    var waitingLookups: [Int32] = []
    var delay = ReconnectDelay()
    var nextAttemptMicroseconds: Int64 = 0
    var attemptMicroseconds: Int64 = 0
    /// Where it led last, of the addresses of the store's name, and whether that could not be reached.
    var address: SocketAddress?
    var isAddressBad = false
    var wasReady = false
    /// Never tried before: what is for it waits for the first attempt instead of counting as an outage.
    var isFresh = false
    /// The master that it leads to has taken the place of another.
    var isSuccessor = false
    /// Name of the history that its master's data has taken since writes were lost, and a number for it;
    /// empty and 0 when none were.
    var history: [UInt8] = []
    var historyNumber: UInt64 = 0
    /// Where the walk has come over the accounts of which Redis may have lost something.
    var restorePosition = Int.max
    /// How far Redis has been told of it, and when the roll is answered next.
    var telling = Telling.walking
    var nextRollMicroseconds: Int64 = 0
    /// Redis has forgotten the script: it is loaded again before the next debit.
    var needsScript = false
    /// The master that a sentinel or a cluster names for this lane; nil is unknown, or a lane at rest.
    var master: StoreTopology.Master?
    var breaker = StoreBreaker()
    var clock = StoreClock()
}

/// One connection to Redis and what is asked on it: the only one, or that to one master of a cluster.
final class StoreLane {
    let number: Int32
    let connection: StoreConnection
    let state: Mutable<StoreLaneState>

    init(number: Int32, connection: StoreConnection, commands: Int, debits: Int) {
        self.number = number
        self.connection = connection
        state = Mutable(
            StoreLaneState(
                pending: Ring(repeating: PendingCommand(), capacity: commands),
                debits: Ring(repeating: Int32(-1), capacity: debits)))
    }

    /// Whether calls may depend on it.
    var isReady: Bool { connection.isReady && !state.value.breaker.isProbing }
    /// Where its master is.
    var address: SocketAddress? { state.value.master?.address }

    /// Whether one more look-up fits, with what may have to go before it.
    var hasRoomForLookup: Bool { state.value.pending.freeCount > 1 && connection.output.freeCount > 1_024 }

    /// Whether calls may wait for it.
    var takesCalls: Bool { isReady || state.value.isFresh }
}

/// What follows from the kind of store, once for a worker.
struct StoreWays {
    /// Whether every slot has a master of its own.
    let isCluster: Bool
    /// Whether somebody else names the masters: a sentinel or the cluster.
    let isFollowing: Bool
    /// For Redis over TLS.
    let context: TLSClientContext?
    /// The connection to Redis, in a cluster that to one of its masters; nil with the memory store.
    let firstLane: StoreLane?

    /// - Throws: `TLSError`, when there is no trust to speak of.
    init(_ store: StoreConfiguration, _ poller: Poller, _ wire: TLSWire) throws(TLSError) {
        if case .cluster = store.endpoint { isCluster = true } else { isCluster = false }
        if case .sentinel = store.endpoint { isFollowing = true } else { isFollowing = isCluster }
        switch store.endpoint {
        case .redis(_, _, true), .sentinel(_, _, true), .cluster(_, true):
            context = try TLSClientContext(caPath: store.caPath, wire: wire)
        default: context = nil
        }
        guard store.endpoint != .memory else {
            firstLane = nil
            return
        }
        firstLane = StoreLane(
            number: 0, connection: Self.connection(store, poller, wire, context, lane: 0),
            commands: HardLimits.storeCommands, debits: HardLimits.storeDebits)
    }

    /// A connection that is not made yet.
    ///
    /// - Parameter lane: whose events are its.
    static func connection(
        _ store: StoreConfiguration, _ poller: Poller, _ wire: TLSWire, _ context: TLSClientContext?,
        lane: Int
    ) -> StoreConnection {
        var serverName = ""
        if case .redis(let host, _, true) = store.endpoint { serverName = host }
        let connection = StoreConnection(
            credentials: StoreCredentials(user: store.user, password: store.password?.reveal()),
            database: store.database, script: TakeScript.source, poller: poller,
            token: Token(.store, SlotReference(index: lane, generation: 0)).rawValue, wire: wire,
            context: context, serverName: serverName)
        if case .sentinel = store.endpoint { connection.checksRole = true }
        return connection
    }
}

/// Everything about the store that changes; touched by the worker's thread only.
struct StoreState {
    /// Which of the store's clocks the answer that is being taken is reckoned by, and whether it has told of
    /// a step, after which nobody knows yet whose clock it was.
    var epoch = 0
    var hasStepped = false
    var freeWaiter: Int32 = -1
    var untouchedWaiters: Int32 = 0
    /// Keys in use by calls under way that the cache no longer holds, counted by digest.
    var orphans: [Digest256: Int32] = [:]
    /// Keys in use by calls under way whose records are to be looked at again.
    var revisits: Set<Digest256> = []
    /// The same for those that could not be asked for, or were in vain: they wait for the next walk.
    var revisitsPutOff: Set<Digest256> = []
    /// Counts up whenever the keys of all calls under way are to be looked at again.
    var round: UInt32 = 0
    var roundMicroseconds: Int64 = 0
    /// Where the present walk over the calls under way has come, and when the next one begins.
    var sweepPosition = Int.max
    var nextSweepMicroseconds: Int64 = 0
    /// What may be asked about keys that are new to this worker, and by callers who have guessed before.
    var newKeys = Allowance(
        perSecond: HardLimits.newKeysPerSecond, burst: HardLimits.newKeysPerSecond)
    var guesses = Allowance(perSecond: HardLimits.guessesPerSecond, burst: HardLimits.guessesPerSecond)
    /// Number of the last call of the script.
    var calls: Int64 = 0
    /// What the debits that are being written tell Redis that it may have lost, by account.
    var restored: [Int32: [SpentLog.Entry]] = [:]
    /// Accounts whose leases Redis has to hear of.
    var leased: [Int32] = []
    var nextLeaseTickMicroseconds: Int64 = 0
    /// Accounts whose callers wait for leases of others to come back.
    var delayed: [Int32] = []
    /// Accounts that have permits in Redis, in no order, where the walk over them has come, and when the next
    /// one begins.
    var toTidy: [Int32] = []
    var tidyPosition = 0
    var nextTidyMicroseconds: Int64 = 0
    /// Accounts by the hash of their names.
    var accounts: [Fingerprint: Int32] = [:]
    /// Every lane; the first is the worker's `lane`. None ever goes away: a lane at rest is used again.
    var lanes: [StoreLane] = []
    /// The lane of each slot of a cluster, `ClusterSlot.nobody` when it has no master; empty without a
    /// cluster.
    var owners: [UInt8] = []
    /// Debits that a cluster could not take at the moment, and when they are tried again.
    var later: [Int32] = []
    var laterMicroseconds: Int64 = 0
}
