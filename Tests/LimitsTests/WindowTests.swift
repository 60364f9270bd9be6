import Limits
import Synchronization
import TestSupport
import Testing

@Suite("Windows")
struct WindowTests {
    static let account: (UInt64, UInt64) = (7, 9)

    static func plan(_ text: String) throws -> LimitPlan { try LimitSpecification.parse(text).plan }

    @Test("no trailing window ever holds more than its limit", arguments: 0..<24)
    func never(_ seed: Int) throws {
        var random = Seeded(UInt64(seed))
        let limits: [Int64] = [1, 2, 7, 100, 4_096, 5_000]
        let limit = limits[seed % limits.count]
        let length: Int64 = 1_000_000
        let table = WindowTable(accounts: 1_000)
        let plan = LimitPlan([Window(limit: limit, lengthMicroseconds: length)])
        var now: Int64 = 1
        var admitted: [(at: Int64, cost: Int64)] = []
        for _ in 0..<20_000 {
            // Bursts, then pauses of every length.
            if Int.random(in: 0..<8, using: &random) == 0 {
                now += Int64.random(in: 0...(length / 3), using: &random)
            }
            let cost = Int64.random(in: 1...3, using: &random)
            let decision = table.take(account: Self.account, plan: plan, cost: cost, nowMicroseconds: now)
            if decision.isGranted { admitted.append((now, cost)) }
        }
        #expect(TrailingWindow.worst(admitted, length) <= limit)
        #expect(!admitted.isEmpty || limit < 1)
    }

    @Test("the instant that a refusal names is the first at which it is let in", arguments: 0..<12)
    func honest(_ seed: Int) throws {
        var random = Seeded(UInt64(seed) + 99)
        let plan = LimitPlan([
            Window(limit: 20, lengthMicroseconds: 100_000), Window(limit: 50, lengthMicroseconds: 900_000),
        ])
        let table = WindowTable(accounts: 1_000)
        var now: Int64 = 1
        for _ in 0..<3_000 {
            now += Int64.random(in: 0...3_000, using: &random)
            let cost = Int64.random(in: 1...4, using: &random)
            let decision = table.take(account: Self.account, plan: plan, cost: cost, nowMicroseconds: now)
            guard !decision.isGranted else { continue }
            let early = table.inspect(
                account: Self.account, plan: plan, cost: cost, nowMicroseconds: decision.retryMicroseconds - 1
            )
            #expect(!early.isGranted)
            now = decision.retryMicroseconds
            let then = table.take(account: Self.account, plan: plan, cost: cost, nowMicroseconds: now)
            #expect(then.isGranted)
        }
    }

    @Test("several windows are all or nothing")
    func allOrNothing() throws {
        let table = WindowTable(accounts: 1_000)
        let plan = try Self.plan("10/second,3/minute")
        for _ in 0..<3 {
            #expect(table.take(account: Self.account, plan: plan, cost: 1, nowMicroseconds: 5).isGranted)
        }
        let refused = table.take(account: Self.account, plan: plan, cost: 1, nowMicroseconds: 5)
        #expect(!refused.isGranted && refused.remaining[0] == 7 && refused.remaining[1] == 0)
        #expect(refused.retryMicroseconds == 5 + 60_000_000 + 1)
    }

    @Test("a changed limit acts at once and forgets nothing")
    func changes() throws {
        let table = WindowTable(accounts: 1_000)
        for _ in 0..<10 {
            _ = table.take(
                account: Self.account, plan: try Self.plan("10/minute"), cost: 1, nowMicroseconds: 1)
        }
        let lower = table.take(
            account: Self.account, plan: try Self.plan("3/minute"), cost: 1, nowMicroseconds: 2)
        #expect(!lower.isGranted && lower.remaining[0] == 0)
        let higher = table.take(
            account: Self.account, plan: try Self.plan("12/minute"), cost: 1, nowMicroseconds: 3)
        #expect(higher.isGranted && higher.remaining[0] == 1)
        let none = table.take(
            account: Self.account, plan: try Self.plan("0/minute"), cost: 1, nowMicroseconds: 4)
        #expect(!none.isGranted && none.retryMicroseconds == 0)
        let costly = table.take(
            account: Self.account, plan: try Self.plan("2/second"), cost: 3, nowMicroseconds: 5)
        #expect(!costly.isGranted && costly.retryMicroseconds == 0)
    }

    @Test("eight threads on one account get exactly what there is")
    func threads() async throws {
        let table = WindowTable(accounts: 1_000)
        let plan = try Self.plan("5000/minute")
        let granted = await withTaskGroup(of: Int.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    (0..<700).filter { number in
                        table.take(account: (1, 1), plan: plan, cost: 1, nowMicroseconds: Int64(number))
                            .isGranted
                    }.count
                }
            }
            return await group.reduce(0, +)
        }
        #expect(granted == 5_000)
    }

    @Test(
        "a hint to a place that is another account's by now, or nobody's, changes no answer",
        arguments: [-7, 0, 1, 99])
    func staleHint(_ place: Int32) throws {
        let table = WindowTable(accounts: 128)
        let plan = try Self.plan("2/second")
        for account in [(UInt64(0), UInt64(7)), (64, 8)] {
            for cost in [true, true, false] {
                var hint = place
                let decision = table.take(
                    account: account, plan: plan, cost: 1, nowMicroseconds: 1, hint: &hint)
                #expect(decision.isGranted == cost && hint >= 0)
            }
        }
        // A full shard gives the place away; its former owner starts anew and takes nobody else's permits.
        var hint: Int32 = -1
        _ = table.take(account: (0, 7), plan: plan, cost: 1, nowMicroseconds: 1, hint: &hint)
        let given = table.take(account: (128, 9), plan: plan, cost: 2, nowMicroseconds: 9_000_000)
        let others = table.take(account: (192, 10), plan: plan, cost: 2, nowMicroseconds: 9_000_000)
        #expect(given.isGranted && others.isGranted)
        let again = table.take(account: (0, 7), plan: plan, cost: 1, nowMicroseconds: 9_000_001, hint: &hint)
        #expect(!again.isGranted)
    }

    @Test("a full table forgets idle accounts and refuses rather than forget busy ones")
    func bounded() throws {
        let table = WindowTable(accounts: 64)
        let plan = try Self.plan("1/second")
        for number in 0..<64 {
            #expect(
                table.take(account: (UInt64(number), 0), plan: plan, cost: 1, nowMicroseconds: 1).isGranted)
        }
        #expect(!table.take(account: (0, 1), plan: plan, cost: 1, nowMicroseconds: 2).isGranted)
        #expect(table.take(account: (0, 1), plan: plan, cost: 1, nowMicroseconds: 2_000_000).isGranted)
        #expect(table.take(account: (0, 0), plan: plan, cost: 1, nowMicroseconds: 9_000_000).isGranted)
    }

    @Test("Retry-After is whole seconds, never early and never a second too late")
    func seconds() {
        #expect(retryAfterSeconds(nowMicroseconds: 0, retryMicroseconds: 60_000_001) == 60)
        #expect(retryAfterSeconds(nowMicroseconds: 0, retryMicroseconds: 59_000_002) == 60)
        #expect(retryAfterSeconds(nowMicroseconds: 0, retryMicroseconds: 1) == 1)
        #expect(retryAfterSeconds(nowMicroseconds: 10, retryMicroseconds: 0) == 1)
    }

    @Test("an address may fail so often a minute")
    func failures() {
        let limiter = FailureLimiter(limitPerMinute: 3, addresses: 1_000)
        for _ in 0..<3 { #expect(limiter.recordFailure(prefix: (0, 1), nowMicroseconds: 5) == 0) }
        #expect(limiter.recordFailure(prefix: (0, 1), nowMicroseconds: 6) == 60_000_006)
        #expect(limiter.recordFailure(prefix: (0, 2), nowMicroseconds: 6) == 0)
        #expect(limiter.recordFailure(prefix: (0, 1), nowMicroseconds: 60_000_006) == 0)
        let off = FailureLimiter(limitPerMinute: 0, addresses: 1_000)
        for _ in 0..<100 { #expect(off.recordFailure(prefix: (0, 1), nowMicroseconds: 5) == 0) }
    }

    @Test("limits are read as they are written")
    func specifications() throws {
        let both = try LimitSpecification.parse("1000/minute, 50/second")
        #expect(both.windows.map(\.limit) == [1_000, 50])
        #expect(both.windows.map(\.lengthMicroseconds) == [60_000_000, 1_000_000])
        #expect(both.text == "1000/minute,50/second")
        #expect(try LimitSpecification.parse("5/10s").windows[0].lengthMicroseconds == 10_000_000)
        #expect(try LimitSpecification.parse("1/500ms").windows[0].lengthMicroseconds == 500_000)
        for bad in [
            "", "x", "1", "1/", "/minute", "-1/minute", "1/fortnight", "1/0s", "1/minute,2/60s", "1/99d",
            "1/m",
        ] {
            #expect(throws: LimitProblem.self) { try LimitSpecification.parse(bad) }
        }
    }
}
