import Limits
import TestSupport
import Testing

/// The windows against the plainest thing that could be right, and under threads.
@Suite("Windows and their model")
struct WindowModelTests {
    /// Every permit written down on its own, by window length.
    struct Model {
        var permits: [Int64: [Int64]] = [:]

        mutating func take(_ plan: LimitPlan, _ cost: Int64, _ now: Int64) -> Decision {
            var decision = Decision(isGranted: true, count: plan.count)
            var never = false
            for index in 0..<plan.count {
                let window = plan.windows[index]
                let live = (permits[window.lengthMicroseconds] ?? [])
                    .filter { $0 >= now - window.lengthMicroseconds }
                permits[window.lengthMicroseconds] = live
                let excess = live.count + Int(cost) - Int(window.limit)
                guard excess > 0 else { continue }
                decision.isGranted = false
                if cost > window.limit {
                    never = true
                } else {
                    decision.retryMicroseconds = max(
                        decision.retryMicroseconds, live[excess - 1] + window.lengthMicroseconds + 1)
                }
            }
            if never { decision.retryMicroseconds = 0 }
            for index in 0..<plan.count {
                let window = plan.windows[index]
                if decision.isGranted {
                    permits[window.lengthMicroseconds]? += Array(repeating: now, count: Int(cost))
                }
                let live = permits[window.lengthMicroseconds] ?? []
                decision.remaining[index] = max(0, window.limit - Int64(live.count))
                decision.resetMicroseconds[index] = live.first.map { $0 + window.lengthMicroseconds + 1 } ?? 0
            }
            return decision
        }
    }

    static func values(_ decision: Decision) -> [Int64] {
        var values = [decision.isGranted ? 1 : 0, decision.retryMicroseconds]
        for index in 0..<decision.count {
            values += [decision.remaining[index], decision.resetMicroseconds[index]]
        }
        return values
    }

    @Test(
        "every answer is the exact one, through changes of plan and clocks that step back", arguments: 0..<16)
    func exact(_ seed: Int) throws {
        var random = Seeded(UInt64(seed) + 1_000)
        let lengths: [Int64] = [1_000, 10_000, 35_000, 100_000]
        let limits: [Int64] = [0, 1, 3, 20, 50, 333]
        let table = WindowTable(accounts: 1_000)
        var model = Model()
        var plan = LimitPlan([Window(limit: 20, lengthMicroseconds: 10_000)])
        var now: Int64 = 0
        for _ in 0..<6_000 {
            if Int.random(in: 0..<200, using: &random) == 0 {
                let chosen = lengths.shuffled(using: &random).prefix(Int.random(in: 1...4, using: &random))
                plan = LimitPlan(
                    chosen.map {
                        Window(
                            limit: limits[Int.random(in: 0..<limits.count, using: &random)],
                            lengthMicroseconds: $0)
                    })
            }
            let step = Int64.random(in: -200...400, using: &random)
            let cost = Int64.random(in: 1...4, using: &random)
            let said = now + step
            now = max(now, said)
            let decision = table.take(
                account: WindowTests.account, plan: plan, cost: cost, nowMicroseconds: said)
            let expected = model.take(plan, cost, now)
            try #require(Self.values(decision) == Self.values(expected), "at \(now), cost \(cost)")
        }
    }

    @Test("threads on several accounts with several windows get exactly the narrowest of each")
    func threads() async {
        let table = WindowTable(accounts: 1_000)
        let plans = [100, 4_000, 4_100].map { limit in
            LimitPlan([
                Window(limit: 10_000, lengthMicroseconds: 60_000_000),
                Window(limit: limit, lengthMicroseconds: 30_000_000),
                Window(limit: 8_000, lengthMicroseconds: 3_600_000_000),
            ])
        }
        let granted = await withTaskGroup(of: [Int64].self) { group in
            for worker in 0..<8 {
                group.addTask {
                    var granted: [Int64] = [0, 0, 0]
                    for number in 0..<1_650 {
                        let account = number % 3
                        // All of them end up in one shard, and no two agree about the time.
                        let decision = table.take(
                            account: (64 * UInt64(account), 0), plan: plans[account],
                            cost: Int64(1 + account % 2), nowMicroseconds: Int64(number * (1 + worker)))
                        if decision.isGranted { granted[account] += Int64(1 + account % 2) }
                    }
                    return granted
                }
            }
            return await group.reduce([0, 0, 0]) { zip($0, $1).map(+) }
        }
        #expect(granted == [100, 4_000, 4_100])
    }

    @Test("what others granted is counted to the last permit, however much it is")
    func unconditional() throws {
        let table = WindowTable(accounts: 1_000)
        let day: Int64 = 86_400_000_000
        let small = LimitPlan([Window(limit: 100, lengthMicroseconds: day)])
        for number in 1...40_000 {
            table.spend(
                account: WindowTests.account, plan: small, cost: 1, atMicroseconds: Int64(number))
        }
        let large = LimitPlan([Window(limit: 50_000, lengthMicroseconds: day)])
        let full = table.inspect(
            account: WindowTests.account, plan: large, cost: 1, nowMicroseconds: 40_000)
        #expect(full.remaining[0] == 10_000)
        // Memory has an end, so the newest are kept together, until the last has left.
        let later = table.inspect(
            account: WindowTests.account, plan: large, cost: 1, nowMicroseconds: day + 30_000)
        #expect(later.remaining[0] < 39_999)
        let early = table.inspect(
            account: WindowTests.account, plan: small, cost: 100, nowMicroseconds: day + 40_000)
        #expect(!early.isGranted && early.retryMicroseconds == day + 40_001)
    }

    @Test("looking spends nothing")
    func inspection() throws {
        let table = WindowTable(accounts: 1_000)
        let plan = try WindowTests.plan("2/minute")
        for _ in 0..<10 {
            let seen = table.inspect(account: (3, 3), plan: plan, cost: 2, nowMicroseconds: 5)
            #expect(seen.isGranted && seen.remaining[0] == 2 && seen.resetMicroseconds[0] == 0)
        }
        #expect(table.take(account: (3, 3), plan: plan, cost: 2, nowMicroseconds: 5).isGranted)
    }

    @Test("neighbouring addresses do not crowd each other out", arguments: [0, 8, 16, 32, 40])
    func neighbours(_ shift: Int) {
        let limiter = FailureLimiter(limitPerMinute: 1, addresses: 8_192)
        for number in 0..<4_096 {
            let bits = UInt64(number) << UInt64(shift)
            #expect(limiter.recordFailure(prefix: (bits, 0), nowMicroseconds: 5) == 0)
        }
        let other = FailureLimiter(limitPerMinute: 1, addresses: 8_192)
        for number in 0..<4_096 {
            let bits = 0xFFFF_0000_0000 | UInt64(number) << UInt64(shift % 20)
            #expect(other.recordFailure(prefix: (0, bits), nowMicroseconds: 5) == 0)
        }
    }

    @Test(
        "a specification says what it refuses",
        arguments: [
            ("5/minute,6/minute", "same window"), ("1/second,1/minute,1/hour,1/day,1/2s", "more than 4"),
            ("1000000001/day", "above 1000000000"), ("7/week", "not a window"), ("7", "not a limit like"),
            ("1/32d", "31 days"), ("1/0ms", "31 days"), ("99999999999999999999/day", "not a limit like"),
            ("1/99999999999999h", "not a window"),
        ])
    func refusals(_ text: String, _ part: String) {
        let problem = #expect(throws: LimitProblem.self) { try LimitSpecification.parse(text) }
        #expect(problem?.text.contains(part) == true, "\(problem?.text ?? "")")
    }
}
