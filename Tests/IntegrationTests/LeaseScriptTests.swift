import Limits
import TestSupport
import Testing

/// Leases in the script, against a real Redis with time given to it.
@Suite("Leases in the script", .serialized)
struct LeaseScriptTests {
    static let start = TakeScriptTests.start

    /// One holder as the test sees it: the lease it was given last, and what it has spent of it.
    struct Holder {
        var name: String
        var call: Int64 = 0
        var permits: Int64 = 0
        var end: Int64 = 0
    }

    @Test("Redis and the model never answer differently about leases", arguments: 0..<3)
    func agreement(_ seed: Int) throws {
        let server = try ScriptServer()
        var random = Seeded(UInt64(seed) + 41)
        let plans = try ["100/10s", "400/20s,90/5s", "4096/minute", "30/4s"].map(TakeScriptTests.plan)
        var model = ScriptModel()
        var holders: [[Holder]] = plans.map { _ in (0..<3).map { Holder(name: "h\($0)") } }
        var now = Self.start
        var calls: [ScriptCall] = []
        var expected: [[ScriptModel.Answer]] = []
        for number in Int64(1)...500 {
            now += Int64.random(in: 0...150_000, using: &random)
            let who = Int.random(in: 0..<3, using: &random)
            var call = ScriptCall(at: now).with {
                $0.caller = "h\(who)"
                $0.number = number
                $0.share = 3
            }
            // Sometimes a call that was overtaken, or one with an old report.
            let isLate = Int.random(in: 0..<12, using: &random) == 0
            if isLate { call.number = max(1, number - Int64.random(in: 1...20, using: &random)) }
            var modelled = ScriptModel.Call(
                caller: call.caller, number: call.number, share: 3, items: [])
            modelled.bounds = StoreClock.Bounds(low: now, middle: now, high: now)
            var accounts: [Int] = []
            for account in plans.indices where Int.random(in: 0..<2, using: &random) == 0 {
                accounts.append(account)
                let (item, same) = Self.item(
                    account, plans[account], holders[account][who], now, number, &random)
                call.items.append(item)
                modelled.items.append(same)
            }
            let answers = model.execute(modelled, clock: now).answers
            calls.append(call)
            expected.append(answers)
            guard !isLate else { continue }
            for (index, account) in accounts.enumerated() where call.items[index].lease.granted >= 0 {
                holders[account][who].permits = answers[index].leased
                guard answers[index].leased > 0 else { continue }
                holders[account][who].call = call.number
                holders[account][who].end = answers[index].leaseEnd
            }
        }
        for (number, (reply, answers)) in zip(try server.take(calls), expected).enumerated() {
            for (item, answer) in zip(reply.items, answers) {
                #expect(item.granted == answer.granted && item.retry == answer.retry, "call \(number)")
                #expect(item.others == answer.others && item.leased == answer.leased, "call \(number)")
                #expect(item.leaseEnd == answer.leaseEnd, "call \(number)")
                #expect(item.remaining == answer.remaining && item.resets == answer.resets, "call \(number)")
            }
        }
        #expect(expected.joined().contains { $0.leased > 0 } && expected.joined().contains { $0.others > 0 })
    }

    private static func item(
        _ account: Int, _ plan: LimitPlan, _ holder: Holder, _ now: Int64, _ number: Int64,
        _ random: inout Seeded
    ) -> (ScriptCall.Item, ScriptModel.Item) {
        let requests = Int64.random(in: 0...6, using: &random)
        let cost = Int64.random(in: 1...2, using: &random)
        var item = ScriptCall.Item(account: "\(account)", plan: plan, requests: requests, cost: cost)
        var model = ScriptModel.Item(account: "\(account)", plan: plan, requests: requests, cost: cost)
        guard Int.random(in: 0..<4, using: &random) > 0 else { return (item, model) }
        item.lease.granted = holder.call
        item.lease.wanted = Int64.random(in: 0...40, using: &random)
        item.lease.length = 300_000
        var at = max(Self.start, holder.end - 300_000)
        var left = holder.permits
        while left > 0, item.lease.report.count < 5 {
            at += Int64.random(in: 0...60_000, using: &random)
            let permits = Int64.random(in: 1...left, using: &random)
            item.lease.report.append((at, permits))
            left -= permits
        }
        if Int.random(in: 0..<6, using: &random) == 0 {
            // Some of it may have been told before, and not be there any longer.
            let first = max(1, number - Int64.random(in: 0...20, using: &random))
            item.lease.unasked = [
                (now - 2_000_000, 2, first), (now - 100, 1, number), (now + 5_000_000, 1, number),
            ]
        }
        model.granted = item.lease.granted
        model.wanted = item.lease.wanted
        model.length = item.lease.length
        model.report = item.lease.report
        model.unasked = item.lease.unasked
        return (item, model)
    }

    private func lease(
        _ account: String, _ text: String, granted: Int64 = 0, wanted: Int64 = 100
    ) throws
        -> ScriptCall.Item
    {
        var item = ScriptCall.Item(account: account, plan: try TakeScriptTests.plan(text), requests: 0)
        item.lease.granted = granted
        item.lease.wanted = wanted
        item.lease.length = 500_000
        return item
    }

    @Test(
        "a lease counts in full, and what was not spent of it comes back", arguments: ["400/10s", "8000/10s"])
    func settling(_ text: String) throws {
        let server = try ScriptServer()
        let first = try server.take([ScriptCall(at: Self.start, try lease("s", text))])[0].items[0]
        let limit = try TakeScriptTests.plan(text).windows[0].limit
        #expect(first.leased == 100 && first.leaseEnd == Self.start + 500_000)
        #expect(first.remaining == [limit - 100])
        var report = try lease("s", text, granted: 1, wanted: 0)
        report.lease.report = [(Self.start + 1_000, 3), (Self.start + 2_000, 4)]
        let settled = ScriptCall(at: Self.start + 100_000, report).with { $0.number = 2 }
        // Repeated, it changes nothing; nor does another with the same number of the lease.
        let again = ScriptCall(at: Self.start + 100_001, report).with { $0.number = 3 }
        let replies = try server.take([settled, again])
        for reply in replies { #expect(reply.items[0].remaining == [limit - 7]) }
        // Each permit stops counting a window after it was spent, not after it was reported.
        let later = try server.take([
            ScriptCall(at: Self.start + 10_001_001, try lease("s", text, wanted: 0)),
            ScriptCall(at: Self.start + 10_004_443, try lease("s", text, wanted: 0)),
        ])
        #expect(later[0].items[0].remaining[0] >= limit - 7)
        #expect(later[1].items[0].remaining == [limit])
    }

    @Test("a holder that stays silent has spent its lease at its end, and a late report changes nothing")
    func silence() throws {
        let server = try ScriptServer()
        let other = try lease("q", "400/10s", granted: -1, wanted: 0)
        _ = try server.take([ScriptCall(at: Self.start, try lease("q", "400/10s"))])
        let due = Self.start + 500_000 + TakeScript.graceMicroseconds
        var report = try lease("q", "400/10s", granted: 1, wanted: 0)
        report.lease.report = [(Self.start + 1_000, 3)]
        let replies = try server.take([
            ScriptCall(at: due, other).with { $0.caller = "two" },
            ScriptCall(at: due + 1, other).with { $0.caller = "two" },
            ScriptCall(at: due + 2, report).with { $0.number = 2 },
            ScriptCall(at: Self.start + 10_500_000, other).with { $0.caller = "two" },
            ScriptCall(at: Self.start + 10_500_001, other).with { $0.caller = "two" },
        ])
        #expect(replies.map { $0.items[0].remaining[0] } == [300, 300, 300, 300, 400])
        #expect(replies.map { $0.items[0].others } == [100, 0, 0, 0, 0])
    }

    @Test("a call that was overtaken does not touch the lease of its successor")
    func overtaken() throws {
        let server = try ScriptServer()
        let replies = try server.take([
            ScriptCall(at: Self.start, try lease("o", "400/10s")).with { $0.number = 7 },
            ScriptCall(at: Self.start + 1, try lease("o", "400/10s", granted: 3)).with { $0.number = 6 },
            ScriptCall(at: Self.start + 2, try lease("o", "400/10s", granted: -1, wanted: 0)).with {
                $0.caller = "two"
            },
            // A grant that its holder never heard of has not been spent.
            ScriptCall(at: Self.start + 3, try lease("o", "400/10s", granted: 3, wanted: 0)).with {
                $0.number = 8
            },
        ])
        #expect(replies.map { $0.items[0].leased } == [100, 0, 0, 0])
        #expect(replies.map { $0.items[0].remaining[0] } == [300, 300, 300, 400])
    }

    @Test(
        "of what writes have lost, what is later than the end of the list is put back, once for each caller",
        arguments: ["400/10s", "8000/10s"])
    func restoring(_ text: String) throws {
        let server = try ScriptServer()
        let plan = try TakeScriptTests.plan(text)
        let limit = plan.windows[0].limit
        func call(_ after: Int64, _ caller: String, lost: [(at: Int64, permits: Int64)]) -> ScriptCall {
            var item = ScriptCall.Item(account: "x", plan: plan, requests: 1)
            item.lease.lost = lost
            return ScriptCall(at: Self.start + after, item).with {
                $0.caller = caller
                $0.history = "run1repl1"
            }
        }
        _ = try server.take([
            ScriptCall(at: Self.start, .init(account: "x", plan: plan, requests: 10)),
            ScriptCall(at: Self.start + 500_000, .init(account: "x", plan: plan, requests: 10)),
        ])
        let replies = try server.take([
            // The first is there; of the others nothing is.
            call(2_000_000, "one", lost: [(Self.start + 500_000, 10), (Self.start + 900_000, 7)]),
            call(2_000_001, "two", lost: [(Self.start + 100_000, 5), (Self.start + 800_000, 9)]),
            call(2_000_002, "one", lost: []),
        ])
        #expect(replies.map { limit - $0.items[0].remaining[0] } == [28, 38, 39])
        // Each stops counting a window after it was let in.
        let later = try server.take([
            ScriptCall(at: Self.start + 10_805_000, .init(account: "x", plan: plan, requests: 0)),
            ScriptCall(at: Self.start + 10_905_000, .init(account: "x", plan: plan, requests: 0)),
            ScriptCall(at: Self.start + 12_005_000, .init(account: "x", plan: plan, requests: 0)),
        ])
        #expect(later.map { limit - $0.items[0].remaining[0] } == [10, 3, 0])
        // Without a list everything is put back.
        _ = try server.run(["DEL \(ScriptCall.key("x", plan.windows[0]))"])
        let all = try server.take([call(20_000_000, "one", lost: [(Self.start + 19_000_000, 12)])])
        #expect(limit - all[0].items[0].remaining[0] == 13)
    }

    @Test(
        "what was spent without asking counts once, though no answer came to the call that told it",
        arguments: ["100/10s", "8000/10s", "100/10s,9000/20s"])
    func toldAgain(_ text: String) throws {
        let server = try ScriptServer()
        let plan = try TakeScriptTests.plan(text)
        let limit = plan.windows[0].limit
        func call(
            _ number: Int64, _ after: Int64, wanted: Int64 = 0, _ told: (Int64, Int64, Int64)...
        ) -> ScriptCall {
            var item = ScriptCall.Item(account: "t", plan: plan, requests: 0)
            item.lease.granted = 0
            item.lease.wanted = wanted
            item.lease.length = 500_000
            item.lease.unasked = told.map { (Self.start + $0.0, $0.1, $0.2) }
            return ScriptCall(at: Self.start + after, item).with { $0.number = number }
        }
        func other(_ after: Int64) -> ScriptCall {
            ScriptCall(at: Self.start + after, .init(account: "t", plan: plan, requests: 0)).with {
                $0.caller = "two"
            }
        }
        let replies = try server.take([
            call(7, 1, (0, 60, 7)), other(2_000_000),
            // Again, with what has come since; and once more.
            call(8, 3_000_000, (0, 60, 7), (2_500_000, 5, 8)),
            call(9, 3_000_001, (0, 60, 7), (2_500_000, 5, 8)),
            // Redis reads what was sent first when its successors have been answered.
            call(7, 3_000_002, (0, 60, 7)),
            // The call may have brought a lease besides, which nobody has heard of.
            call(10, 3_000_003, wanted: 9, (2_600_000, 1, 10)), call(11, 3_000_004, (2_600_000, 1, 10)),
            // What has been told under another number is something else.
            call(12, 3_000_005, (2_600_000, 1, 12)),
            other(10_010_000), other(12_610_000),
        ])
        #expect(replies.map { limit - $0.items[0].remaining[0] } == [60, 60, 65, 65, 65, 75, 66, 67, 7, 0])
        #expect(replies.allSatisfy { $0.items[0].others == 0 })
        // With the last of it the note goes too.
        _ = try server.take([other(22_610_000)])
        for index in 0..<plan.count {
            #expect(try server.run(["EXISTS \(ScriptCall.key("t", plan.windows[index]))"]) == ["0"])
        }
    }

    @Test("the last quarter is not leased, and whoever finds nothing calls the leases of others back")
    func lastQuarter() throws {
        let server = try ScriptServer()
        var take = try lease("l", "100/10s", wanted: 0)
        take.requests = 75
        var more = try lease("l", "100/10s", granted: -1, wanted: 0)
        more.requests = 1
        let replies = try server.take([
            ScriptCall(at: Self.start, take),
            ScriptCall(at: Self.start + 1, try lease("l", "100/10s")).with { $0.number = 2 },
        ])
        #expect(replies[1].items[0].leased == 0)
        let others = try server.take([
            ScriptCall(at: Self.start, try lease("m", "100/10s")),
            ScriptCall(
                at: Self.start + 1,
                {
                    var rest = more
                    rest.account = "m"
                    rest.requests = 60
                    return rest
                }()
            ).with { $0.caller = "two" },
        ])
        #expect(others[0].items[0].leased == 50)
        #expect(others[1].items[0].granted == 50 && others[1].items[0].others == 50)
        #expect(others[1].items[0].retry == Self.start + 1 + 10_000_001)
    }
}
