import Limits
import TestSupport
import Testing

/// The script against a real Redis, with time given to it, and once with Redis's own.
@Suite("Script", .serialized)
struct TakeScriptTests {
    /// Redis's clock in tests that stand still: the year 2026.
    static let start: Int64 = 1_764_000_000_000_000

    static func plan(_ text: String) throws -> LimitPlan { try LimitSpecification.parse(text).plan }

    /// What the windows in memory say to the same requests.
    static func inMemory(
        _ table: WindowTable, _ item: ScriptCall.Item, _ account: UInt64, _ now: Int64
    )
        -> ScriptReply.Item
    {
        var granted: Int64 = 0
        while granted < item.requests {
            let decision = table.take(
                account: (account, 1), plan: item.plan, cost: item.cost, nowMicroseconds: now)
            guard decision.isGranted else { break }
            granted += 1
        }
        let next = table.inspect(
            account: (account, 1), plan: item.plan, cost: item.cost, nowMicroseconds: now)
        var reply = ScriptReply.Item(granted: granted, retry: next.retryMicroseconds)
        for index in 0..<item.plan.count {
            reply.remaining.append(next.remaining[index])
            reply.resets.append(next.resetMicroseconds[index])
        }
        return reply
    }

    @Test("Redis and memory never answer differently", arguments: 0..<6)
    func agreement(_ seed: Int) throws {
        let server = try ScriptServer()
        var random = Seeded(UInt64(seed) + 1)
        let texts = [
            "1/10s", "7/20s", "100/minute", "100/minute,9/10s", "60/10s,200/20s,9000/hour", "5000/minute",
            "20000/minute,6000/20s", "0/minute", "3/20s,2/minute",
        ]
        let plans = try texts.map(Self.plan)
        var now = Self.start
        var calls: [ScriptCall] = []
        for _ in 0..<3_000 {
            if Int.random(in: 0..<4, using: &random) == 0 {
                now += Int64.random(in: 0...2_000_000, using: &random)
            }
            var call = ScriptCall(at: now)
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let account = Int.random(in: 0..<plans.count, using: &random)
                let isHeavy = plans[account].windows[0].limit > 4_096
                call.items.append(
                    .init(
                        account: "\(account)", plan: plans[account],
                        requests: Int64.random(in: 1...(isHeavy ? 300 : 8), using: &random),
                        cost: Int64.random(in: 1...3, using: &random)))
            }
            calls.append(call)
        }
        let table = WindowTable(accounts: 6_400)
        for (call, reply) in zip(calls, try server.take(calls)) {
            #expect(reply.now == call.bounds.low)
            for (item, answered) in zip(call.items, reply.items) {
                let expected = Self.inMemory(table, item, UInt64(item.account) ?? 0, reply.now)
                #expect(answered == expected, "\(item) at \(reply.now)")
            }
        }
    }

    @Test("a limit that changes, even past what is kept one by one, binds at once", arguments: 0..<6)
    func changes(_ seed: Int) throws {
        let server = try ScriptServer()
        var random = Seeded(UInt64(seed) + 77)
        let length: Int64 = 20_000_000
        let limits: [Int64] = [3, 100, 4_096, 4_097, 5_000, 20_000]
        var limit = limits[0]
        var now = Self.start
        var calls: [ScriptCall] = []
        for _ in 0..<3_000 {
            if Int.random(in: 0..<40, using: &random) == 0 {
                limit = limits[Int.random(in: 0..<limits.count, using: &random)]
            }
            now += Int64.random(in: 0...60_000, using: &random)
            let plan = LimitPlan([Window(limit: limit, lengthMicroseconds: length)])
            let requests = Int64.random(in: 1...200, using: &random)
            let cost = Int64.random(in: 1...5, using: &random)
            calls.append(
                ScriptCall(at: now, .init(account: "c", plan: plan, requests: requests, cost: cost)))
        }
        var admitted: [(at: Int64, permits: Int64)] = []
        for (call, reply) in zip(calls, try server.take(calls)) {
            let item = call.items[0]
            let permits = reply.items[0].granted * item.cost
            // Runs keep a permit for up to 1/4096 of the window too long.
            admitted.removeAll { $0.at < reply.now - length - length / 4_096 }
            let counted = admitted.reduce(0) { $0 + $1.permits }
            let before = admitted.reduce(0) { $0 + ($1.at < reply.now - length ? 0 : $1.permits) }
            let limit = item.plan.windows[0].limit
            #expect(before + permits <= limit || permits == 0)
            let due = max(0, min(item.requests, (limit - counted) / item.cost))
            #expect(reply.items[0].granted >= due)
            #expect(reply.items[0].remaining[0] <= limit - before - permits)
            if permits > 0 { admitted.append((reply.now, permits)) }
        }
    }

    @Test(
        "the instant that the script names is the first at which it lets in",
        arguments: ["20/10s", "5000/10s"])
    func honest(_ text: String) throws {
        let server = try ScriptServer()
        let plan = try Self.plan(text)
        var random = Seeded(5)
        var now = Self.start
        for _ in 0..<12 {
            var calls: [ScriptCall] = []
            for _ in 0..<60 {
                now += Int64.random(in: 0...30_000, using: &random)
                calls.append(ScriptCall(at: now, .init(account: "h", plan: plan, requests: 200)))
            }
            let retry = try #require(try server.take(calls).last?.items[0].retry)
            #expect(retry > now)
            let replies = try server.take([
                ScriptCall(at: retry - 1, .init(account: "h", plan: plan)),
                ScriptCall(at: retry, .init(account: "h", plan: plan)),
            ])
            #expect(replies.map { $0.items[0].granted } == [0, 1])
            now = retry
        }
    }

    @Test("no instant is named for what never fits, whatever the other windows say")
    func neverFits() throws {
        let server = try ScriptServer()
        let plan = try Self.plan("10/20s,3/minute")
        let replies = try server.take([
            ScriptCall(at: Self.start, .init(account: "n", plan: plan, requests: 3)),
            ScriptCall(at: Self.start, .init(account: "n", plan: plan, requests: 1, cost: 9)),
        ])
        #expect(replies.map { $0.items[0].granted } == [3, 0])
        #expect(replies[0].items[0].retry == Self.start + 60_000_001)
        #expect(replies[1].items[0].retry == 0)
    }

    @Test("a window that Redis keeps always has an end")
    func expiry() throws {
        let server = try ScriptServer()
        let length = Window(limit: 0, lengthMicroseconds: 20_000_000)
        let plans = try ["4096/20s", "4097/20s"].map(Self.plan)
        var calls = [ScriptCall(at: Self.start)]
        for index in 0..<5 {
            calls.append(
                ScriptCall(
                    at: Self.start + Int64(index), .init(account: "e", plan: plans[0], requests: 1_000)))
        }
        // Turns the list into runs without room for what is asked.
        calls.append(ScriptCall(at: Self.start + 9, .init(account: "e", plan: plans[1], cost: 5)))
        #expect(try server.take(calls).last?.items[0].granted == 0)
        let name = ScriptCall.key("e", length)
        let replies = try server.run(["PTTL \(name)", "LINDEX \(name) 0"])
        #expect(try #require(Int64(replies[0])) > 0)
        #expect(replies[1] == "\"r:4096\"")
    }

    @Test("a clock that steps back frees nothing early", arguments: ["96/10s", "8000/10s"])
    func clockStepsBack(_ text: String) throws {
        let server = try ScriptServer()
        let plan = try Self.plan(text)
        let limit = plan.windows[0].limit
        // The first and the last microsecond of one run.
        let grain = plan.windows[0].lengthMicroseconds / 4_096
        let early = Self.start / grain * grain
        let late = early + grain - 1
        let item = ScriptCall.Item(account: "b", plan: plan, requests: limit / 8, cost: 4)
        let replies = try server.take([
            ScriptCall(at: late, item), ScriptCall(at: early, item), ScriptCall(at: early, item),
            ScriptCall(at: early + 10_000_001, item), ScriptCall(at: late + 10_000_000, item),
            ScriptCall(at: late + 10_000_001, item),
        ])
        #expect(replies.map { $0.items[0].granted } == [limit / 8, limit / 8, 0, 0, 0, limit / 8])
    }

    @Test(
        "what another program wrote where a window belongs concerns that account alone",
        arguments: ["SET NAME text", "HSET NAME a b", "RPUSH NAME text", "RPUSH NAME r:1 text"])
    func foreign(_ command: String) throws {
        let server = try ScriptServer()
        let plan = try Self.plan("9/20s,3/minute")
        let name = ScriptCall.key("f", plan.windows[1])
        _ = try server.take([ScriptCall(at: Self.start - 30_000_000, .init(account: "f", plan: plan))])
        _ = try server.run(["DEL \(name)", command.replacing("NAME", with: name)])
        let items = ["g", "f", "h"].map { ScriptCall.Item(account: $0, plan: plan, requests: 5) }
        let replies = try server.take([
            ScriptCall(at: Self.start).with { $0.items = items },
            ScriptCall(at: Self.start + 1).with { $0.items = items },
        ])
        #expect(replies.map { $0.items.map(\.granted) } == [[3, -1, 3], [0, -1, 0]])
        #expect(replies[0].items[1].remaining == [0, 0])
        // Once it is gone, the account is decided again, and its other windows are as they were.
        _ = try server.run(["DEL \(name)"])
        let after = try server.take([ScriptCall(at: Self.start + 2, items[1])])
        #expect(after[0].items[0].granted == 3)
    }

    @Test("connections that compete on Redis's own clock never get more than there is")
    func competition() async throws {
        let server = try ScriptServer()
        let length: Int64 = 300_000
        let plan = LimitPlan([Window(limit: 100, lengthMicroseconds: length)])
        let item = ScriptCall.Item(account: "r", plan: plan, requests: 3)
        let replies = try await withThrowingTaskGroup(of: [ScriptReply].self) { group in
            for _ in 0..<4 {
                group.addTask { try server.take(Array(repeating: ScriptCall(item), count: 6_000)) }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        let admitted = replies.filter { $0.items[0].granted > 0 }
            .map { (at: $0.now, cost: $0.items[0].granted) }.sorted { $0.at < $1.at }
        #expect(TrailingWindow.worst(admitted, length) == 100)
    }
}
