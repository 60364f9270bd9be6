import Limits
import TestSupport
import Testing

/// The protocol of leases under random schedules: every message may be late, lost or overtaken, every node
/// may stop for a while or for good, and every clock drifts. A failing seed fails again.
@Suite("Leases under random schedules")
struct LeaseModelTests {
    /// One window, its load, and how bad the network is.
    struct Scenario: Sendable, CustomTestStringConvertible {
        var limit: Int64
        var length: Int64
        var nodes: Int
        /// Microseconds between two calls of the whole account, on average.
        var pause: Int64
        var delay: ClosedRange<Int64>
        var lossPercent = 0
        var crashPercent = 0
        /// Steps of Redis's clock, in microseconds; 0 is none.
        var step: Int64 = 0

        var testDescription: String {
            "\(limit) in \(length / 1_000) ms, \(nodes) nodes, loss \(lossPercent) %, "
                + "crash \(crashPercent) %, step \(step / 1_000) ms"
        }
    }

    static let scenarios = [
        Scenario(limit: 1_000, length: 2_000_000, nodes: 3, pause: 1_000, delay: 100...2_000),
        Scenario(limit: 1_000, length: 2_000_000, nodes: 3, pause: 3_000, delay: 100...2_000),
        Scenario(limit: 400, length: 1_000_000, nodes: 2, pause: 1_500, delay: 100...20_000),
        Scenario(limit: 4_000, length: 4_000_000, nodes: 5, pause: 500, delay: 100...1_000),
        Scenario(
            limit: 1_000, length: 2_000_000, nodes: 3, pause: 1_000, delay: 100...30_000, lossPercent: 10),
        Scenario(
            limit: 1_000, length: 2_000_000, nodes: 4, pause: 1_000, delay: 100...5_000, lossPercent: 5,
            crashPercent: 2),
        Scenario(
            limit: 1_000, length: 2_000_000, nodes: 3, pause: 1_000, delay: 100...2_000, step: 3_600_000_000),
        Scenario(
            limit: 1_000, length: 2_000_000, nodes: 3, pause: 1_000, delay: 100...2_000,
            step: -3_600_000_000),
    ]

    /// A gateway's worker with one account.
    struct Node {
        var name: String
        /// Parts in a million that its clock is fast.
        var drift: Int64
        var lease: Lease
        var clock = StoreClock()
        var demand = Demand()
        var number: Int64 = 0
        var waiting = 0
        var isAsking = false
        var asked = 0
        /// When the calls came that wait, and those that the question under way is about.
        var waitingSince: [Int64] = []
        var askedSince: [Int64] = []
        var connection = 0
        var stoppedUntil: Int64 = 0
        var deniedUntil: Int64 = 0
        var delays = 0
        var delayedUntil: Int64 = 0

        func local(_ time: Int64) -> Int64 { 5_000_000 + time + time * drift / 1_000_000 }
    }

    struct Answer {
        var reply: ScriptModel.Reply
        var executed: Int64
        var number: Int64
        var node: Int
        var connection: Int
        var asked: Int64
        /// What was subtracted from Redis's clock where permits are written down.
        var skew: Int64
    }

    enum Event {
        case call
        case arrival(ScriptModel.Call, node: Int, connection: Int, asked: Int64, isHeard: Bool)
        case answer(Answer)
        case lost(node: Int, connection: Int)
        case recall(node: Int)
        case tick(node: Int)
        case clockStep
    }

    @Test(
        "no trailing window holds more than its limit, and what there is gets used",
        arguments: scenarios, 0..<2)
    func schedules(_ scenario: Scenario, _ seed: Int) throws {
        var run = Run(scenario, UInt64(seed) &* 7_919 &+ 13)
        run.go(until: 4 * scenario.length)
        let admitted = run.admitted.sorted { $0.at < $1.at }
        #expect(TrailingWindow.worst(admitted, scenario.length) <= scenario.limit)
        let stranded = run.stranded()
        let ideal = run.ideal(without: stranded)
        #expect(admitted.count <= run.ideal(without: []) + Int(scenario.limit))
        // What was granted to somebody who never heard of it, or went away with it, is missing; nothing else.
        #expect(admitted.count * 100 >= ideal * 99, "\(admitted.count) of \(ideal)")
        if scenario.lossPercent == 0, scenario.crashPercent == 0 {
            #expect(stranded.isEmpty)
            #expect(run.calls < admitted.count, "\(run.calls) calls")
        }
    }

    struct Run {
        let scenario: Scenario
        let plan: LimitPlan
        var random: Seeded
        var model = ScriptModel()
        var nodes: [Node]
        var queue: [(at: Int64, order: Int, event: Event)] = []
        var order = 0
        var now: Int64 = 0
        var redisOffset: Int64 = 1_764_000_000_000_000
        var admitted: [(at: Int64, cost: Int64)] = []
        var offered: [Int64] = []
        var calls = 0
        /// Calls that nobody has decided: their node died, or the answer never came.
        var undecided: [Int64] = []
        /// Permits that were granted in an answer that nobody heard, and when.
        var unheard: [(at: Int64, permits: Int64)] = []
        /// When the permits of each lease were spent, by holder and the call that granted it.
        var spent: [String: [Int64]] = [:]
        var names = 0

        init(_ scenario: Scenario, _ seed: UInt64) {
            self.scenario = scenario
            random = Seeded(seed)
            plan = LimitPlan([Window(limit: scenario.limit, lengthMicroseconds: scenario.length)])
            nodes = []
            for _ in 0..<scenario.nodes { nodes.append(makeNode()) }
            push(0, .call)
            for node in 0..<scenario.nodes { push(5_000, .tick(node: node)) }
            if scenario.step != 0 { push(2 * scenario.length + scenario.length / 3, .clockStep) }
        }

        /// What one exact window would have let in of the same callers, had it lacked what is `stranded`.
        func ideal(without stranded: [(from: Int64, until: Int64, permits: Int64)]) -> Int {
            var changes = stranded.map { ($0.from, $0.permits) } + stranded.map { ($0.until, -$0.permits) }
            changes.sort { $0.0 > $1.0 }
            var undecided = undecided.sorted(by: >)
            var missing: Int64 = 0
            var admitted: [Int64] = []
            var first = 0
            for at in offered {
                while let change = changes.last, change.0 <= at {
                    missing += change.1
                    changes.removeLast()
                }
                while let other = undecided.last, other < at { undecided.removeLast() }
                guard undecided.last != at else {
                    undecided.removeLast()
                    continue
                }
                while first < admitted.count, admitted[first] < at - scenario.length { first += 1 }
                if Int64(admitted.count - first) + missing < scenario.limit { admitted.append(at) }
            }
            return admitted.count
        }

        /// What was on lease to those who never reported, for a window from the end of the lease, and what
        /// was granted to those who never heard of it.
        func stranded() -> [(from: Int64, until: Int64, permits: Int64)] {
            var stranded = unheard.map { (from: $0.at, until: $0.at + scenario.length, permits: $0.permits) }
            for lease in model.abandoned {
                let end = lease.end - redisOffset
                let used = spent["\(lease.holder)/\(lease.call)"] ?? []
                stranded.append((end, end + scenario.length, lease.permits - Int64(used.count)))
                // What was spent counts from the end of the lease too.
                stranded += used.map { ($0 + scenario.length, end + scenario.length, 1) }
            }
            return stranded
        }

        mutating func makeNode() -> Node {
            names += 1
            return Node(
                name: "n\(names)", drift: Int64.random(in: -400...400, using: &random), lease: Lease(plan))
        }

        mutating func push(_ delay: Int64, _ event: Event) {
            order += 1
            let entry = (at: now + delay, order: order, event: event)
            var low = 0
            var high = queue.count
            while low < high {
                let middle = (low + high) / 2
                if (queue[middle].at, queue[middle].order) > (entry.at, entry.order) {
                    low = middle + 1
                } else {
                    high = middle
                }
            }
            queue.insert(entry, at: low)
        }

        mutating func go(until end: Int64) {
            while let next = queue.popLast(), next.at <= end {
                now = next.at
                handle(next.event)
            }
        }

        mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

        mutating func delay() -> Int64 {
            // Mostly short, sometimes as long as it gets.
            let range = scenario.delay
            let long = Int64.random(in: range, using: &random)
            return chance(90) ? range.lowerBound + (long - range.lowerBound) / 8 : long
        }

        mutating func handle(_ event: Event) {
            switch event {
            case .call:
                // Bursts, and the pause that makes up for them.
                let isBurst = chance(80)
                push(
                    isBurst
                        ? scenario.pause / 4 : Int64.random(in: 0...(scenario.pause * 8), using: &random),
                    .call)
                serve(Int.random(in: 0..<nodes.count, using: &random))
            case .tick(let node):
                push(5_000, .tick(node: node))
                guard nodes[node].stoppedUntil <= now else { return }
                if chance(scenario.crashPercent) {
                    if chance(50) {
                        undecided += nodes[node].waitingSince + nodes[node].askedSince
                        nodes[node] = makeNode()
                    } else {
                        nodes[node].stoppedUntil = now + Int64.random(in: 0...1_000_000, using: &random)
                    }
                    return
                }
                if nodes[node].lease.isDue(nodes[node].local(now)) || nodes[node].waiting > 0 { ask(node) }
            case .arrival(let call, let node, let connection, let asked, let isHeard):
                let reply = model.execute(call, clock: redisOffset + now)
                calls += 1
                guard isHeard else {
                    waste(reply, executed: now)
                    return
                }
                push(
                    delay(),
                    .answer(
                        Answer(
                            reply: reply, executed: now, number: call.number, node: node,
                            connection: connection, asked: asked, skew: call.skew.low)))
            case .answer(let answer): take(answer)
            case .recall(let node):
                if nodes[node].stoppedUntil <= now, nodes[node].lease.isOpen { ask(node, isRecalled: true) }
            case .lost(let node, let connection):
                guard nodes[node].connection == connection else { return }
                nodes[node].connection += 1
                nodes[node].isAsking = false
                giveUp(node)
            case .clockStep: redisOffset += scenario.step
            }
        }

        /// Nobody hears what was granted. A lease is dropped by the next call of its holder, or abandoned.
        mutating func waste(_ reply: ScriptModel.Reply, executed: Int64) {
            guard reply.answers[0].granted > 0 else { return }
            unheard.append((executed, reply.answers[0].granted))
        }

        /// Whoever waits at a node is answered without the store.
        mutating func giveUp(_ node: Int) {
            undecided += nodes[node].waitingSince + nodes[node].askedSince
            nodes[node].waitingSince = []
            nodes[node].askedSince = []
            nodes[node].waiting = 0
            nodes[node].lease.answerIsLost()
        }

        /// A caller at a node.
        mutating func serve(_ node: Int) {
            guard nodes[node].stoppedUntil <= now else { return }
            offered.append(now)
            let local = nodes[node].local(now)
            if nodes[node].lease.take(1, nowMicroseconds: local) != nil {
                nodes[node].demand.note(1, nowMicroseconds: local)
                admitted.append((now, 1))
                spent["\(nodes[node].name)/\(nodes[node].lease.call)", default: []].append(now)
                return
            }
            guard local >= nodes[node].deniedUntil else { return }
            nodes[node].demand.note(1, nowMicroseconds: local)
            nodes[node].waiting += 1
            nodes[node].waitingSince.append(now)
            ask(node)
        }

        mutating func ask(_ node: Int, isRecalled: Bool = false) {
            let local = nodes[node].local(now)
            guard !nodes[node].isAsking, local >= nodes[node].delayedUntil else { return }
            nodes[node].isAsking = true
            nodes[node].number += 1
            nodes[node].asked = nodes[node].waiting
            nodes[node].waiting = 0
            nodes[node].askedSince = nodes[node].waitingSince
            nodes[node].waitingSince = []
            let lease = nodes[node].lease
            var item = ScriptModel.Item(
                account: "a", plan: plan, requests: Int64(nodes[node].asked), cost: 1)
            item.granted = lease.call
            item.length = Lease.length(of: plan)
            item.wanted = isRecalled ? 0 : nodes[node].demand.wanted(length: item.length, cost: 1)
            if lease.isOpen {
                for index in 0..<lease.spent.count {
                    let entry = lease.spent[index]
                    item.report.append((nodes[node].clock.latest(entry.at), entry.permits))
                }
            }
            var call = ScriptModel.Call(
                caller: nodes[node].name, number: nodes[node].number, share: Int64(scenario.nodes),
                items: [item])
            call.bounds = nodes[node].clock.bounds(local, slack: 250_000)
            call.skew = nodes[node].clock.skew
            nodes[node].lease.beginReport(call: nodes[node].number)
            let isLost = chance(scenario.lossPercent)
            let connection = nodes[node].connection
            if isLost {
                // It arrives late, after others, or never; nobody hears the answer.
                push(50_000, .lost(node: node, connection: connection))
                if chance(70) {
                    push(
                        Int64.random(in: 0...300_000, using: &random),
                        .arrival(
                            call, node: node, connection: connection, asked: local, isHeard: false))
                }
            } else {
                push(
                    delay(),
                    .arrival(call, node: node, connection: connection, asked: local, isHeard: true))
            }
        }

        mutating func take(_ heard: Answer) {
            let node = heard.node
            // Of a connection that is gone, or of a node that was here before.
            guard nodes[node].connection == heard.connection, nodes[node].number == heard.number,
                nodes[node].isAsking
            else {
                waste(heard.reply, executed: heard.executed)
                return
            }
            if nodes[node].stoppedUntil > now {
                // The answer waits in the socket until the node goes on.
                push(nodes[node].stoppedUntil - now + 1, .answer(heard))
                return
            }
            let local = nodes[node].local(now)
            _ = nodes[node].clock.observe(heard.reply.raw, asked: heard.asked, answered: local)
            nodes[node].isAsking = false
            if heard.reply.now != heard.reply.raw - heard.skew, local - heard.asked > 250_000 {
                giveUp(node)
                waste(heard.reply, executed: heard.executed)
                return
            }
            let answer = heard.reply.answers[0]
            for _ in 0..<answer.granted { admitted.append((heard.executed, 1)) }
            let clock = nodes[node].clock
            nodes[node].lease.renew(
                permits: answer.leased, call: heard.number, nowMicroseconds: local,
                lastMicroseconds: answer.leased > 0 ? clock.surelyBefore(answer.leaseEnd) : local,
                base: Decision(isGranted: true, count: 1))
            let refused = nodes[node].asked - Int(answer.granted)
            if refused > 0, answer.others > 0, nodes[node].delays < 2 {
                nodes[node].delays += 1
                nodes[node].delayedUntil = local + 10_000
                nodes[node].waiting += refused
                nodes[node].waitingSince = nodes[node].askedSince.suffix(refused) + nodes[node].waitingSince
                nodes[node].askedSince = []
                for other in 0..<nodes.count where other != node { push(delay(), .recall(node: other)) }
                return
            }
            nodes[node].askedSince = []
            nodes[node].delays = 0
            nodes[node].deniedUntil =
                answer.retry == 0
                ? 0
                : min(
                    clock.surelyBefore(answer.retry), answer.others > 0 ? local + 20_000 : Int64.max)
        }
    }
}
