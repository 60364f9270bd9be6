import Keys
import Limits
import Reactor
import Redis

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
    /// The record changed while the answer was under way: the answer may be older than the change.
    var isDirty = false
}

/// What a worker keeps of an account whose windows are in Redis.
struct Account {
    var hash: Fingerprint
    /// The name, as it stands in Redis's keys.
    var name: Block
    /// Keys of the account in this worker, and one while a debit is under way.
    var holders: Int32 = 0
    /// Calls that wait for the next debit.
    var waiting = WaiterList()
    /// Calls of the debit under way.
    var debited = WaiterList()
    var debitedCost: Int64 = 0
    var debitedKey: Int32 = -1
    var isQueued = false
    /// Until then every call of at least this cost under this plan is refused here: only time frees permits.
    var deniedUntilMicroseconds: Int64 = 0
    var deniedCost: Int64 = 0
    var deniedPlan = LimitPlan([])
    var deniedDecision = Decision(isGranted: false, count: 0)
}

/// A command whose reply has not come.
struct PendingCommand {
    enum Kind: UInt8 { case lookup, take }

    var kind = Kind.lookup
    /// The look-up's number, or how many items the debit has.
    var number: Int32 = 0
    var sentMicroseconds: Int64 = 0
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

/// Everything about the store that changes; touched by the worker's thread only.
struct StoreState {
    var pending = Ring(repeating: PendingCommand(), capacity: 8_192)
    /// Accounts of the debits under way, in order.
    var debits = Ring(repeating: Int32(-1), capacity: 65_536)
    /// Accounts with calls that wait for a debit, in order of arrival.
    var queue: [Int32] = []
    var freeWaiter: Int32 = -1
    var untouchedWaiters: Int32 = 0
    var delay = ReconnectDelay()
    var nextAttemptMicroseconds: Int64 = 0
    var attemptMicroseconds: Int64 = 0
    var wasReady = false
    /// The last instant that Redis named, and when it was asked and answered on our clock; 0 before the
    /// first.
    var redisMicroseconds: Int64 = 0
    var askedMicroseconds: Int64 = 0
    var answeredMicroseconds: Int64 = 0
    /// Accounts by the hash of their names.
    var accounts: [Fingerprint: Int32] = [:]
}
