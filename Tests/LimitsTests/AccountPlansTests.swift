import Limits
import TestSupport
import Testing

/// Keys of one account may each have a plan of their own: none may lose what another needs.
@Suite("Plans of one account")
struct AccountPlansTests {
    private static func plan(_ limit: Int64, _ milliseconds: [Int64]) -> LimitPlan {
        LimitPlan(milliseconds.map { Window(limit: limit, lengthMicroseconds: $0 * 1_000) })
    }

    private static func isGranted(
        _ table: WindowTable, _ plan: LimitPlan, _ now: Int64, account: UInt64 = 7
    ) -> Bool {
        table.take(account: (account, 9), plan: plan, cost: 1, nowMicroseconds: now).isGranted
    }

    @Test("keys that take turns get what their limits say, however many windows they have between them")
    func turns() throws {
        let table = WindowTable(accounts: 1_000)
        let plans = try [
            "10/10s,100/minute,1000/hour", "20/20s,200/2m,2000/2h", "30/30s,300/3m,3000/3h,30000/day",
        ].map(WindowTests.plan)
        var granted = [0, 0, 0]
        for number in 0..<3_000 where Self.isGranted(table, plans[number % 3], Int64(number) * 1_000) {
            granted[number % 3] += 1
        }
        #expect(granted == [10, 20, 30])
    }

    @Test("every answer to every key is the exact one, and no window ever holds too much", arguments: 0..<12)
    func exact(_ seed: Int) throws {
        var random = Seeded(UInt64(seed) + 5_000)
        let lengths: [Int64] = (0..<18).map { _ in Int64.random(in: 1_000...120_000, using: &random) }
        let limits: [Int64] = [1, 3, 20, 50, 333]
        func somePlan() -> LimitPlan {
            LimitPlan(
                lengths.shuffled(using: &random).prefix(Int.random(in: 1...4, using: &random)).map {
                    Window(
                        limit: limits[Int.random(in: 0..<limits.count, using: &random)],
                        lengthMicroseconds: $0)
                })
        }
        var plans = (0..<(2 + seed % 5)).map { _ in somePlan() }
        let table = WindowTable(accounts: 6_400)
        var model = WindowModelTests.Model()
        var now: Int64 = 0
        for number in 0..<4_000 {
            // A reload, now and then.
            if Int.random(in: 0..<1_000, using: &random) == 0 { plans[number % plans.count] = somePlan() }
            now += Int64.random(in: 0...400, using: &random)
            if Int.random(in: 0..<100, using: &random) == 0 {
                now += Int64.random(in: 0...60_000, using: &random)
            }
            let plan = plans[Int.random(in: 0..<plans.count, using: &random)]
            let cost = Int64.random(in: 1...4, using: &random)
            let decision = table.take(
                account: WindowTests.account, plan: plan, cost: cost, nowMicroseconds: now)
            let expected = model.take(plan, cost, now)
            try #require(
                WindowModelTests.values(decision) == WindowModelTests.values(expected), "at \(now)")
        }
    }

    @Test("a plan for whose windows there is no room is refused until others have run empty")
    func full() {
        // Room for one account in each of its parts.
        let table = WindowTable(accounts: 64)
        let (first, second) = (Self.plan(2, [10, 20, 30, 40]), Self.plan(9, [50, 60, 70, 80]))
        #expect(Self.isGranted(table, first, 1))
        let refused = table.take(account: (7, 9), plan: second, cost: 1, nowMicroseconds: 2)
        #expect(!refused.isGranted && refused.retryMicroseconds == 1_000_002)
        table.spend(account: (7, 9), plan: second, cost: 1, atMicroseconds: 3)
        #expect(Self.isGranted(table, first, 4))
        #expect(!Self.isGranted(table, first, 5))
        // Nothing is left of the first plan: a reload that replaces it has all the room.
        #expect(Self.isGranted(table, second, 50_000))
        #expect(!Self.isGranted(table, first, 50_001))
    }

    @Test("an account has so many windows and no more, and those that it needs no longer go")
    func perAccount() {
        let table = WindowTable(accounts: 6_400)
        let plans = (0..<17).map { number in Self.plan(3, (1...4).map { Int64(number * 4) + $0 }) }
        for plan in plans.dropLast() { #expect(Self.isGranted(table, plan, 1)) }
        #expect(!Self.isGranted(table, plans[16], 2))
        #expect(Self.isGranted(table, plans[0], 3))
        #expect(Self.isGranted(table, plans[16], 5_010))
        // Those of the first plan have made room for it; the others hold what they held.
        let left = table.inspect(account: (7, 9), plan: plans[15], cost: 1, nowMicroseconds: 5_011)
        #expect(left.remaining[0] == 2)
    }

    @Test("windows that an account has no more use for make room for another account's")
    func sharedRoom() {
        // Room for two accounts in each of its parts.
        let table = WindowTable(accounts: 128)
        let (short, long) = (Self.plan(2, [10, 11, 12, 13]), Self.plan(9, [500, 600, 700, 800]))
        #expect(Self.isGranted(table, short, 1) && Self.isGranted(table, long, 1))
        #expect(!Self.isGranted(table, long, 2, account: 71))
        #expect(Self.isGranted(table, long, 20_000, account: 71))
        #expect(!Self.isGranted(table, short, 20_001))
        let left = table.inspect(account: (7, 9), plan: long, cost: 1, nowMicroseconds: 20_002)
        #expect(left.isGranted && left.remaining[0] == 8)
    }
}
