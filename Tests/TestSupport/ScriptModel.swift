package import Limits

/// The debit script in its plainest form: what it must answer, and what it must leave behind. Exact windows
/// only, without the runs that Redis keeps for large limits.
package struct ScriptModel {
    /// What one account asks for, in the script's own order.
    package struct Item {
        package var account: String
        package var plan: LimitPlan
        package var requests: Int64
        package var cost: Int64
        /// -1 when the item is not about a lease.
        package var granted: Int64 = -1
        package var wanted: Int64 = 0
        package var length: Int64 = 0
        package var report: [(at: Int64, permits: Int64)] = []
        /// With the number of the call that told of it first.
        package var unasked: [(at: Int64, permits: Int64, call: Int64)] = []

        package init(account: String, plan: LimitPlan, requests: Int64, cost: Int64) {
            self.account = account
            self.plan = plan
            self.requests = requests
            self.cost = cost
        }
    }

    package struct Call {
        package var bounds = StoreClock.Bounds(low: 0, middle: 0, high: 0)
        package var skew = StoreClock.Skew.none
        package var caller: String
        package var number: Int64
        package var share: Int64
        package var items: [Item]

        package init(caller: String, number: Int64, share: Int64, items: [Item]) {
            self.caller = caller
            self.number = number
            self.share = share
            self.items = items
        }
    }

    package struct Answer: Equatable {
        package var granted: Int64 = 0
        package var retry: Int64 = 0
        package var others: Int64 = 0
        package var leased: Int64 = 0
        package var leaseEnd: Int64 = 0
        package var remaining: [Int64] = []
        package var resets: [Int64] = []

        package init() {}
    }

    package struct Reply {
        package var now: Int64
        package var raw: Int64
        package var answers: [Answer]
    }

    private struct Held {
        var permits: Int64
        var end: Int64
        var call: Int64
    }

    private struct WindowState {
        var permits: [Int64] = []
        var held: [String: Held] = [:]
    }

    private var windows: [String: WindowState] = [:]
    /// Leases that were written down in full because nobody reported what was spent of them.
    package private(set) var abandoned: [(holder: String, call: Int64, permits: Int64, end: Int64)] = []

    package init() {}

    /// Permits out on lease, over all windows of the length.
    package func outstanding(_ account: String, _ length: Int64) -> Int64 {
        windows["\(account):\(length)"]?.held.values.reduce(0) { $0 + $1.permits } ?? 0
    }

    /// - Parameter clock: Redis's, in microseconds.
    package mutating func execute(_ call: Call, clock: Int64) -> Reply {
        var (now, low) = (clock - call.skew.low, clock - call.skew.high)
        if call.bounds.low > 0 {
            if now < call.bounds.low || low > call.bounds.high {
                (now, low) = (call.bounds.high, call.bounds.low)
            } else if low < call.bounds.low || low > call.bounds.middle {
                low = call.bounds.low
            }
        }
        let answers = call.items.map { decide($0, call, now, low) }
        return Reply(now: now, raw: clock, answers: answers)
    }

    private mutating func decide(_ item: Item, _ call: Call, _ now: Int64, _ low: Int64) -> Answer {
        var answer = Answer()
        var isLate = false
        let lengths = (0..<item.plan.count).map { item.plan.windows[$0].lengthMicroseconds }
        let limits = (0..<item.plan.count).map { item.plan.windows[$0].limit }
        let names = lengths.map { "\(item.account):\($0)" }
        for (name, length) in zip(names, lengths) {
            var window = windows[name] ?? WindowState()
            window.permits.removeAll { $0 < low - length }
            isLate = settle(&window, length, item, call, now, low) || isLate
            windows[name] = window
            let others = window.held.filter { $0.key != call.caller }.values.reduce(0) { $0 + $1.permits }
            answer.others = max(answer.others, others)
        }
        func used(_ name: String) -> Int64 {
            let window = windows[name] ?? WindowState()
            return Int64(window.permits.count) + window.held.values.reduce(0) { $0 + $1.permits }
        }
        answer.granted = item.requests
        for (name, limit) in zip(names, limits) {
            let room = limit - used(name)
            answer.granted = min(answer.granted, room >= 0 ? room / item.cost : -1)
        }
        if answer.granted < 0 || isLate { answer.granted = 0 }
        let spent = answer.granted * item.cost
        answer.leased = isLate ? 0 : item.wanted
        for (name, limit) in zip(names, limits) {
            let room = limit - used(name) - spent
            answer.leased = room * 4 <= limit ? 0 : min(answer.leased, room / (2 * call.share))
        }
        if answer.leased < 2 * item.cost { answer.leased = 0 }
        answer.leaseEnd = answer.leased > 0 ? now + item.length : 0
        let isNever = limits.contains { item.cost > $0 }
        for index in names.indices {
            var window = windows[names[index]] ?? WindowState()
            let last = window.held.values.filter { $0.permits > 0 }.map(\.end).max() ?? 0
            window.permits += Array(repeating: now, count: Int(spent))
            let total = Int64(window.permits.count) + window.held.values.reduce(0) { $0 + $1.permits }
            if !isNever, total + item.cost > limits[index] {
                let back = total + item.cost - limits[index]
                let free = back <= window.permits.count ? window.permits[Int(back) - 1] : last
                answer.retry = max(answer.retry, free + lengths[index] + 1)
            }
            answer.remaining.append(limits[index] - total - answer.leased)
            answer.resets.append(window.permits.first.map { $0 + lengths[index] + 1 } ?? 0)
            if answer.leased > 0 {
                window.held[call.caller] = Held(
                    permits: answer.leased, end: answer.leaseEnd, call: call.number)
            }
            windows[names[index]] = window
        }
        return answer
    }

    /// - Returns: whether the call is older than the lease that its caller has.
    private mutating func settle(
        _ window: inout WindowState, _ length: Int64, _ item: Item, _ call: Call, _ now: Int64, _ low: Int64
    ) -> Bool {
        let horizon = low - length
        var due: [(at: Int64, permits: Int64)] = []
        var isLate = false
        var told: Int64 = 0
        for (holder, held) in window.held {
            let isOwn = holder == call.caller && item.granted >= 0
            if isOwn, held.call <= call.number { told = held.call }
            if held.permits == 0 {
                // What its holder has told, until none of it counts.
                if isOwn ? held.call <= call.number : held.end < low { window.held[holder] = nil }
                isLate = isLate || isOwn && held.call > call.number
            } else if isOwn, held.call <= call.number {
                if held.call == item.granted {
                    due += item.report
                } else if held.call < item.granted {
                    due.append((held.end, held.permits))
                    abandoned.append((holder, held.call, held.permits, held.end))
                }
                window.held[holder] = nil
            } else if !isOwn, held.end + TakeScript.graceMicroseconds < low {
                due.append((held.end, held.permits))
                abandoned.append((holder, held.call, held.permits, held.end))
                window.held[holder] = nil
            } else {
                isLate = isLate || isOwn
            }
        }
        let unasked = isLate ? [] : item.unasked.filter { min($0.at, now) >= horizon }
        due += unasked.filter { $0.call > told }.map { ($0.at, $0.permits) }
        if let last = unasked.map(\.at).max() {
            window.held[call.caller] = Held(permits: 0, end: min(last, now) + length, call: call.number)
        }
        for entry in due where min(entry.at, now) >= horizon {
            let at = min(entry.at, now)
            let place = window.permits.firstIndex { $0 > at } ?? window.permits.count
            window.permits.insert(contentsOf: Array(repeating: at, count: Int(entry.permits)), at: place)
        }
        return isLate
    }
}
