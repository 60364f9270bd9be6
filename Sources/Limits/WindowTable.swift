import Synchronization

// The windows of all accounts of a process, exact over all its threads: an account lives in one shard, and a
// shard is one lock held for tens of nanoseconds. Accounts are found by a keyed hash that callers cannot
// steer.

/// Windows of many accounts. Safe to use from any thread.
package final class WindowTable: Sendable {
    private struct Name: Hashable {
        let low: UInt64
        let high: UInt64
    }

    private struct Account {
        var name: Name
        /// The first of its windows, as a place in the shard's `windows`; -1 for none.
        var firstWindow: Int32 = -1
        /// The history of the store in which somebody has taken it upon itself to tell what the windows hold,
        /// and when; 0 for none.
        var toldHistory: UInt64 = 0
        var toldMicroseconds: Int64 = 0
    }

    private struct Shard {
        var places: [Name: Int32] = [:]
        var accounts: [Account] = []
        var windows: [SlidingWindow] = []
        /// The window of the same account that comes after each of them; -1 for none.
        var nextWindows: [Int32] = []
        var freeWindows: [Int32] = []
        var hand = 0
        var lastMicroseconds: Int64 = 0
    }

    /// A shard with room after it, so that no two locks lie in one cache line.
    private struct Cell: ~Copyable, Sendable {
        let shard = Mutex(Shard())
        private let spacing = InlineArray<8, UInt64>(repeating: 0)
    }

    private static let shardCount = 64
    /// Accounts looked at for one that may go, or for windows that may, when a shard is full.
    private static let evictionSteps = 64
    /// Most windows of one account, whose keys may each have a plan of their own: a call looks through them.
    private static let windowsPerAccount = 64

    /// In the object itself: a class for each would be retained and released by every call.
    private let cells: InlineArray<64, Cell>
    private let accountsPerShard: Int
    private let windowsPerShard: Int

    /// - Parameter accounts: most accounts that are followed at once, with four windows for each, which they
    ///   share. When all of them hold permits, a new account or window is refused rather than an old one
    ///   forgotten: forgetting would admit too much.
    package init(accounts: Int) {
        cells = InlineArray { _ in Cell() }
        accountsPerShard = max(1, accounts / Self.shardCount)
        windowsPerShard = accountsPerShard * LimitPlan.windowsMaximum
    }

    /// Takes `cost` permits of every window of the plan, or of none.
    ///
    /// - Parameters:
    ///   - account: a keyed hash of the account's name.
    ///   - cost: 1 to 1,000.
    ///   - nowMicroseconds: monotonic; a value before the last one of the shard counts as that one.
    package func take(
        account: (UInt64, UInt64), plan: LimitPlan, cost: Int64, nowMicroseconds: Int64
    ) -> Decision {
        var hint: Int32 = -1
        return decide(account, plan, cost, nowMicroseconds, spends: true, &hint)
    }

    /// The same for whoever asks for an account again and again.
    ///
    /// - Parameter hint: where the account was found last, which is then looked at first; -1 at first.
    package func take(
        account: (UInt64, UInt64), plan: LimitPlan, cost: Int64, nowMicroseconds: Int64, hint: inout Int32
    ) -> Decision {
        decide(account, plan, cost, nowMicroseconds, spends: true, &hint)
    }

    /// What `take` would answer, spending nothing.
    package func inspect(
        account: (UInt64, UInt64), plan: LimitPlan, cost: Int64, nowMicroseconds: Int64
    ) -> Decision {
        var hint: Int32 = -1
        return decide(account, plan, cost, nowMicroseconds, spends: false, &hint)
    }

    /// Writes permits down that somebody else has granted, whatever the limit.
    package func spend(account: (UInt64, UInt64), plan: LimitPlan, cost: Int64, atMicroseconds: Int64) {
        cells[Int(account.0 & UInt64(Self.shardCount - 1))].shard.withLock { shard in
            let now = max(atMicroseconds, shard.lastMicroseconds)
            shard.lastMicroseconds = now
            guard let place = place(of: Name(low: account.0, high: account.1), in: &shard, now) else {
                return
            }
            for index in 0..<plan.count {
                guard let window = window(index, of: plan, at: place, in: &shard, now) else { continue }
                shard.windows[window].prune(now)
                shard.windows[window].spend(cost, limit: plan.windows[index].limit, at: now)
            }
        }
    }

    /// What the windows of an account hold, for those who look on: instants with the permits spent then, the
    /// oldest first. Of a window that has never been used there is nothing.
    package func contents(
        account: (UInt64, UInt64), plan: LimitPlan
    ) -> [[(atMicroseconds: Int64, permits: Int64)]] {
        cells[Int(account.0 & UInt64(Self.shardCount - 1))].shard.withLock { shard in
            let place = shard.places[Name(low: account.0, high: account.1)].map { Int($0) }
            return (0..<plan.count).map { number in
                guard let place,
                    let window = window(plan.windows[number].lengthMicroseconds, at: place, in: shard)
                else { return [] }
                return shard.windows[window].contents
            }
        }
    }

    /// What the account's windows hold, the longest of the plan, for a store that may have lost some of it.
    ///
    /// - Parameter history: the store's, above 0. The first to ask in a history is to tell, nobody else.
    /// - Returns: at most `SpentLog.lostMax` entries in order of time, instants never before the true ones;
    ///   empty for all but the first.
    package func tell(
        account: (UInt64, UInt64), plan: LimitPlan, history: UInt64, nowMicroseconds: Int64
    ) -> [SpentLog.Entry] {
        cells[Int(account.0 & UInt64(Self.shardCount - 1))].shard.withLock { shard in
            let now = max(nowMicroseconds, shard.lastMicroseconds)
            shard.lastMicroseconds = now
            guard let place = shard.places[Name(low: account.0, high: account.1)].map({ Int($0) }),
                shard.accounts[place].toldHistory != history
            else { return [] }
            shard.accounts[place].toldHistory = history
            shard.accounts[place].toldMicroseconds = now
            var longest = -1
            for index in 0..<plan.count {
                let length = plan.windows[index].lengthMicroseconds
                guard let window = window(length, at: place, in: shard) else { continue }
                if longest < 0 || length > shard.windows[longest].lengthMicroseconds { longest = window }
            }
            guard longest >= 0 else { return [] }
            shard.windows[longest].prune(now)
            return shard.windows[longest].entries(atMost: SpentLog.lostMax)
        }
    }

    /// When somebody took it upon itself to tell in that history; 0 when nobody did.
    package func told(account: (UInt64, UInt64), history: UInt64) -> Int64 {
        cells[Int(account.0 & UInt64(Self.shardCount - 1))].shard.withLock { shard in
            guard let place = shard.places[Name(low: account.0, high: account.1)].map({ Int($0) }),
                shard.accounts[place].toldHistory == history
            else { return 0 }
            return shard.accounts[place].toldMicroseconds
        }
    }

    /// It is not known whether the store has been told.
    package func untell(account: (UInt64, UInt64)) {
        cells[Int(account.0 & UInt64(Self.shardCount - 1))].shard.withLock { shard in
            guard let place = shard.places[Name(low: account.0, high: account.1)] else { return }
            shard.accounts[Int(place)].toldHistory = 0
        }
    }

    private func decide(
        _ account: (UInt64, UInt64), _ plan: LimitPlan, _ cost: Int64, _ nowMicroseconds: Int64, spends: Bool,
        _ hint: inout Int32
    ) -> Decision {
        cells[Int(account.0 & UInt64(Self.shardCount - 1))].shard.withLock { shard in
            let now = max(nowMicroseconds, shard.lastMicroseconds)
            shard.lastMicroseconds = now
            var decision = Decision(isGranted: true, count: plan.count)
            let name = Name(low: account.0, high: account.1)
            guard let place = known(name, at: hint, in: shard) ?? place(of: name, in: &shard, now) else {
                return Self.noRoom(plan, now)
            }
            hint = Int32(place)
            var used = InlineArray<4, Int32>(repeating: -1)
            for index in 0..<plan.count {
                guard let window = window(index, of: plan, at: place, in: &shard, now) else {
                    return Self.noRoom(plan, now)
                }
                used[index] = Int32(window)
                shard.windows[window].prune(now)
                let limit = plan.windows[index].limit
                if shard.windows[window].used + cost > limit {
                    decision.isGranted = false
                    let retry = shard.windows[window].retryMicroseconds(cost: cost, limit: limit)
                    decision.retryMicroseconds = max(decision.retryMicroseconds, retry)
                    if cost > limit { decision.retryMicroseconds = Int64.max }
                }
            }
            if decision.retryMicroseconds == Int64.max { decision.retryMicroseconds = 0 }
            for index in 0..<plan.count {
                let window = Int(used[index])
                let limit = plan.windows[index].limit
                if decision.isGranted, spends { shard.windows[window].spend(cost, limit: limit, at: now) }
                decision.remaining[index] = max(0, limit - shard.windows[window].used)
                decision.resetMicroseconds[index] = shard.windows[window].resetMicroseconds
            }
            return decision
        }
    }

    private static func noRoom(_ plan: LimitPlan, _ now: Int64) -> Decision {
        var decision = Decision(isGranted: false, count: plan.count)
        decision.retryMicroseconds = now + 1_000_000
        return decision
    }

    private func known(_ name: Name, at hint: Int32, in shard: borrowing Shard) -> Int? {
        let place = Int(hint)
        guard place >= 0, place < shard.accounts.count, shard.accounts[place].name == name else { return nil }
        return place
    }

    private func place(of name: Name, in shard: inout Shard, _ now: Int64) -> Int? {
        if let place = shard.places[name] { return Int(place) }
        let fresh = Account(name: name)
        if shard.accounts.count < accountsPerShard {
            shard.places[name] = Int32(shard.accounts.count)
            shard.accounts.append(fresh)
            return shard.accounts.count - 1
        }
        guard let place = evict(in: &shard, now) else { return nil }
        shard.places[name] = Int32(place)
        shard.accounts[place] = fresh
        return place
    }

    /// Frees the place of an account whose windows are empty.
    private func evict(in shard: inout Shard, _ now: Int64) -> Int? {
        for _ in 0..<Self.evictionSteps {
            shard.hand = (shard.hand + 1) % shard.accounts.count
            let place = shard.hand
            var isIdle = true
            var window = shard.accounts[place].firstWindow
            while window >= 0 {
                shard.windows[Int(window)].prune(now)
                if !shard.windows[Int(window)].isEmpty { isIdle = false }
                window = shard.nextWindows[Int(window)]
            }
            guard isIdle else { continue }
            releaseWindows(of: place, keeping: nil, in: &shard, now)
            shard.places[shard.accounts[place].name] = nil
            return place
        }
        return nil
    }

    /// The account's window of this length, made when it is first needed; nil when there is no room for it.
    private func window(
        _ number: Int, of plan: LimitPlan, at place: Int, in shard: inout Shard, _ now: Int64
    ) -> Int? {
        let length = plan.windows[number].lengthMicroseconds
        if let window = window(length, at: place, in: shard) { return window }
        guard let window = freeWindow(for: place, plan, in: &shard, now) else { return nil }
        shard.windows[Int(window)] = SlidingWindow(lengthMicroseconds: length)
        shard.nextWindows[Int(window)] = shard.accounts[place].firstWindow
        shard.accounts[place].firstWindow = window
        return Int(window)
    }

    private func window(_ length: Int64, at place: Int, in shard: borrowing Shard) -> Int? {
        var window = shard.accounts[place].firstWindow
        while window >= 0 {
            if shard.windows[Int(window)].lengthMicroseconds == length { return Int(window) }
            window = shard.nextWindows[Int(window)]
        }
        return nil
    }

    private func freeWindow(
        for place: Int, _ plan: LimitPlan, in shard: inout Shard, _ now: Int64
    ) -> Int32? {
        // A plan that changed its lengths leaves windows behind, and so does every other key of the account.
        // What they hold may still bind one of those keys, so only empty ones make room.
        if windowCount(of: place, in: shard) >= LimitPlan.windowsMaximum {
            releaseWindows(of: place, keeping: plan, in: &shard, now)
            guard windowCount(of: place, in: shard) < Self.windowsPerAccount else { return nil }
        }
        if let window = shard.freeWindows.popLast() { return window }
        if shard.windows.count < windowsPerShard {
            shard.windows.append(SlidingWindow(lengthMicroseconds: 0))
            shard.nextWindows.append(-1)
            return Int32(shard.windows.count - 1)
        }
        for _ in 0..<Self.evictionSteps where shard.freeWindows.isEmpty {
            shard.hand = (shard.hand + 1) % shard.accounts.count
            if shard.hand != place { releaseWindows(of: shard.hand, keeping: nil, in: &shard, now) }
        }
        return shard.freeWindows.popLast()
    }

    private func windowCount(of place: Int, in shard: borrowing Shard) -> Int {
        var count = 0
        var window = shard.accounts[place].firstWindow
        while window >= 0 {
            count += 1
            window = shard.nextWindows[Int(window)]
        }
        return count
    }

    /// Takes an account's empty windows from it, but for those of a plan.
    private func releaseWindows(
        of place: Int, keeping plan: LimitPlan?, in shard: inout Shard, _ now: Int64
    ) {
        var previous: Int32 = -1
        var window = shard.accounts[place].firstWindow
        while window >= 0 {
            let next = shard.nextWindows[Int(window)]
            shard.windows[Int(window)].prune(now)
            let length = shard.windows[Int(window)].lengthMicroseconds
            if !shard.windows[Int(window)].isEmpty || plan?.hasWindow(of: length) == true {
                previous = window
            } else {
                if previous < 0 {
                    shard.accounts[place].firstWindow = next
                } else {
                    shard.nextWindows[Int(previous)] = next
                }
                shard.freeWindows.append(window)
            }
            window = next
        }
    }
}

extension LimitPlan {
    fileprivate func hasWindow(of lengthMicroseconds: Int64) -> Bool {
        (0..<count).contains { windows[$0].lengthMicroseconds == lengthMicroseconds }
    }
}
