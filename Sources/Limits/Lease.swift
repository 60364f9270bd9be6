// What a worker keeps of an account whose permits it holds on lease: how many are left, until when, and when
// it spent which. The store counts the whole lease until it gets that report, so the report may be late,
// lost or repeated, but its instants must not be before the true ones.
//
// A lease is closed for good when its report is sent: what was not spent goes back. Until the answer comes,
// callers wait as they would without a lease. If the answer does not come, the same report is sent again with
// a later call; the store recognises what it has had.

/// Permits with the instants at which they were spent, in a row of fixed length: what does not fit, or comes
/// within `grain` of its predecessor, moves its predecessor to the later instant.
package struct SpentLog: Sendable {
    /// Most entries: a report has to fit into a call for many accounts.
    package static let capacity = 24
    /// Most entries of what a store is told that has lost writes.
    package static let lostMax = 48

    package struct Entry: Sendable, Equatable {
        /// On our monotonic clock, microseconds.
        package var at: Int64
        package var permits: Int64
        /// Number of the call that told of it first, 0 before: the store knows by it what it has had.
        package var call: Int64 = 0
    }

    private var entries = InlineArray<24, Entry>(repeating: Entry(at: 0, permits: 0))
    package private(set) var count = 0

    package init() {}

    package subscript(index: Int) -> Entry { entries[index] }

    /// Entries later than that.
    package func count(after instant: Int64) -> Int {
        var later = 0
        for index in 0..<count where entries[index].at > instant { later += 1 }
        return later
    }

    /// Nothing is added to what has been told. When all of it has been and there is no more room, the last
    /// two become one, at the later instant and told by the later call: the store may count it twice, and
    /// leaves nothing out.
    ///
    /// - Parameter now: not before any earlier one.
    package mutating func add(_ permits: Int64, at now: Int64, grain: Int64) {
        let last = count - 1
        if count == Self.capacity, entries[last].call != 0 {
            entries[last - 1].at = max(entries[last - 1].at, entries[last].at)
            entries[last - 1].permits &+= entries[last].permits
            entries[last - 1].call = max(entries[last - 1].call, entries[last].call)
            entries[last] = Entry(at: max(now, entries[last].at), permits: permits)
            return
        }
        if count == Self.capacity || last >= 0 && entries[last].call == 0 && now &- entries[last].at < grain {
            entries[last].at = max(now, entries[last].at)
            entries[last].permits &+= permits
            return
        }
        entries[count] = Entry(at: now, permits: permits)
        count += 1
    }

    /// The call of that number tells all of it.
    package mutating func tell(by call: Int64) {
        for index in 0..<count where entries[index].call == 0 { entries[index].call = call }
    }

    /// Forgets what has been told.
    package mutating func forgetTold() {
        var kept = 0
        for index in 0..<count where entries[index].call == 0 {
            entries[kept] = entries[index]
            kept += 1
        }
        count = kept
    }

    package mutating func clear() { count = 0 }
}

/// The lease of one account at one worker.
package struct Lease: Sendable {
    /// The windows that it was taken from.
    package private(set) var plan: LimitPlan
    /// Number of the call that granted the last lease; 0 before the first.
    package private(set) var call: Int64 = 0
    /// Whether the store counts a lease of ours, or may do so, that it has had no report of.
    package private(set) var isOpen = false
    /// Whether a report is under way.
    package private(set) var isReporting = false
    package private(set) var left: Int64 = 0
    /// What was spent of it.
    package private(set) var spent = SpentLog()
    /// What was spent without asking the store, because it was away.
    package private(set) var unasked = SpentLog()
    /// Slot of what the account owes for other windows, and so on: each is told to the windows that it was
    /// spent under, after what comes before it. -1 for none.
    package var next: Int32 = -1
    private var lastMicroseconds: Int64 = 0
    private var dueMicroseconds: Int64 = 0
    private var grain: Int64 = 1
    /// What the windows held when it was granted, itself taken out.
    private var base = Decision(isGranted: true, count: 0)

    package init(_ plan: LimitPlan) { self.plan = plan }

    /// Whether the store has to hear of it.
    package var isOwing: Bool { isOpen || unasked.count > 0 }
    /// The same, of what comes after it too.
    package var isOwingAtAll: Bool { isOwing || next >= 0 }

    /// How long a lease of these windows lasts: half a second, less where the shortest window is short.
    package static func length(of plan: LimitPlan) -> Int64 {
        var shortest = Int64.max
        for index in 0..<plan.count { shortest = min(shortest, plan.windows[index].lengthMicroseconds) }
        return min(500_000, max(10_000, shortest / 32))
    }

    /// Other windows from now on. Only while nothing is owed.
    package mutating func rebase(_ plan: LimitPlan) {
        precondition(!isOwing && !isReporting, "what is owed belongs to the windows it was taken from")
        self.plan = plan
    }

    /// Spends permits of the lease.
    ///
    /// - Parameter now: read from the clock just now; an older reading could be from before the lease's end.
    package mutating func take(_ cost: Int64, nowMicroseconds now: Int64) -> Decision? {
        guard left >= cost, !isReporting, now <= lastMicroseconds else { return nil }
        left &-= cost
        spent.add(cost, at: now, grain: grain)
        return remaining
    }

    /// What a call that spends nothing would be told; nil when `take` would have nothing to give.
    package func look(nowMicroseconds now: Int64) -> Decision? {
        isOpen && !isReporting && now <= lastMicroseconds ? remaining : nil
    }

    private var remaining: Decision {
        var decision = base
        for index in 0..<decision.count {
            decision.remaining[index] = max(0, base.remaining[index] &+ left)
        }
        return decision
    }

    /// Whether it is time to report.
    package func isDue(_ now: Int64) -> Bool { isOpen && !isReporting && now >= dueMicroseconds }

    /// Something was spent while the store was away.
    package mutating func spendUnasked(_ cost: Int64, nowMicroseconds now: Int64) {
        unasked.add(cost, at: now, grain: Self.length(of: plan) / 16)
    }

    /// The report is being sent: nothing more is spent of this lease.
    ///
    /// - Parameter call: its number.
    package mutating func beginReport(call: Int64) {
        unasked.tell(by: call)
        isReporting = true
        left = 0
    }

    /// The store has answered the call that carried the report.
    ///
    /// - Parameters:
    ///   - permits: of a new lease, 0 for none.
    ///   - call: the number of that call.
    ///   - last: the last instant at which it may be spent, on our clock.
    ///   - base: what was left besides.
    package mutating func renew(
        permits: Int64, call: Int64, nowMicroseconds now: Int64, lastMicroseconds last: Int64, base: Decision
    ) {
        spent.clear()
        // What has come meanwhile is told next.
        unasked.forgetTold()
        isReporting = false
        isOpen = permits > 0
        left = permits
        guard isOpen else { return }
        self.call = call
        let length = max(1, last &- now)
        lastMicroseconds = last
        dueMicroseconds = last &- length / 8
        grain = max(1, length / Int64(SpentLog.capacity - 1))
        self.base = base
    }

    /// Nothing more is spent of it, because the store may not know of it any longer; what was is reported.
    package mutating func withdraw() {
        left = 0
        dueMicroseconds = 0
    }

    /// No answer will come. Whether the call arrived is unknown: the next one reports the same again.
    package mutating func answerIsLost() {
        isReporting = false
        left = 0
        dueMicroseconds = 0
    }
}

/// How much an account asks for at one worker: what a lease is made to measure from.
package struct Demand: Sendable {
    private static let periodMicroseconds: Int64 = 100_000

    private var since: Int64 = 0
    private var count: Int64 = 0
    /// Permits a second, the mean of the last periods, recent ones counting more.
    package private(set) var perSecond: Int64 = 0

    package init() {}

    package mutating func note(_ cost: Int64, nowMicroseconds now: Int64) {
        count &+= cost
        let elapsed = now &- since
        guard elapsed >= Self.periodMicroseconds else { return }
        let recent = count &* 1_000_000 / elapsed
        // After a pause the past says nothing.
        perSecond = elapsed > 10 &* Self.periodMicroseconds ? recent : (perSecond &+ recent) / 2
        since = now
        count = 0
    }

    /// Permits that last for `length` microseconds, with a quarter to spare; 0 when a lease would not pay.
    package func wanted(length: Int64, cost: Int64) -> Int64 {
        let wanted = perSecond &* length / 1_000_000
        return wanted < 2 &* cost ? 0 : min(1_000_000, wanted &+ wanted / 4)
    }
}
