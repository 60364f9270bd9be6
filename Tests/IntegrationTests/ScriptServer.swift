import Limits

/// A Redis of the test's own with the script loaded.
struct ScriptServer {
    private let redis: RedisServer
    private let scriptName: String

    init() throws {
        redis = try RedisServer()
        scriptName = try redis.command("SCRIPT", "LOAD", TakeScript.source)
    }

    /// Sends commands over one connection, one by one.
    ///
    /// - Returns: for each command its reply, elements separated by commas.
    func run(_ commands: [String]) throws -> [String] {
        let outcome = try ChildProcess.run(
            "redis-cli", ["-p", String(redis.port), "--csv"], input: commands.joined(separator: "\n") + "\n")
        let replies = outcome.output.split(separator: "\n").map(String.init)
        guard replies.count == commands.count else {
            throw HarnessError("\(replies.count) replies to \(commands.count) commands: \(outcome.error)")
        }
        return replies
    }

    /// Sends calls of the script over one connection, one by one.
    func take(_ calls: [ScriptCall]) throws -> [ScriptReply] {
        let replies = try run(calls.map { "EVALSHA \(scriptName) \($0.arguments)" })
        return try zip(calls, replies).map { call, reply in
            guard let parsed = ScriptReply(reply, to: call) else { throw HarnessError(reply) }
            return parsed
        }
    }
}

/// One call of the script.
struct ScriptCall {
    /// Requests of one account that wait together.
    struct Item {
        var account: String
        var plan: LimitPlan
        var requests: Int64 = 1
        var cost: Int64 = 1
        var lease = LeasePart()
    }

    /// What an item says about the caller's lease.
    struct LeasePart {
        var granted: Int64 = -1
        var wanted: Int64 = 0
        var length: Int64 = 0
        var report: [(at: Int64, permits: Int64)] = []
        /// With the number of the call that told of it first.
        var unasked: [(at: Int64, permits: Int64, call: Int64)] = []
        /// What Redis may have lost.
        var lost: [(at: Int64, permits: Int64)] = []
    }

    /// Bounds on the instant, microseconds; the same twice makes time stand there.
    var bounds: (low: Int64, high: Int64)
    var items: [Item]
    var caller = "one"
    var number: Int64 = 1
    var share: Int64 = 1
    /// Name of a history that began with a loss.
    var history = ""

    init(at now: Int64, _ items: Item...) {
        bounds = (now, now)
        self.items = items
    }

    /// A call on Redis's own clock.
    init(_ items: Item...) {
        bounds = (0, 0)
        self.items = items
    }

    func with(_ change: (inout ScriptCall) -> Void) -> ScriptCall {
        var copy = self
        change(&copy)
        return copy
    }

    static func key(_ account: String, _ window: Window) -> String {
        "limit:{\(account)}:\(window.lengthMicroseconds)"
    }

    var arguments: String {
        var keys: [String] = []
        var words = ["\(bounds.low)", "\(bounds.high)", "\(bounds.high)", "0", "0"]
        words += [caller, "\(number)", "\(share)", "recall", history.isEmpty ? "\"\"" : history]
        for item in items {
            let lease = item.lease
            words += ["\(item.plan.count)", "\(item.requests)", "\(item.cost)"]
            words += ["\(lease.granted)", "\(lease.wanted)", "\(lease.length)"]
            words += ["\(lease.report.count)", "\(lease.unasked.count)", "\(lease.lost.count)"]
            for pair in lease.report { words += ["\(pair.at)", "\(pair.permits)"] }
            for entry in lease.unasked { words += ["\(entry.at)", "\(entry.permits)", "\(entry.call)"] }
            for pair in lease.lost { words += ["\(pair.at)", "\(pair.permits)"] }
            for index in 0..<item.plan.count {
                let window = item.plan.windows[index]
                keys.append(Self.key(item.account, window))
                words += ["\(window.limit)", "\(window.lengthMicroseconds)"]
            }
        }
        return (["\(keys.count)"] + keys + words).joined(separator: " ")
    }
}

/// What the script answered.
struct ScriptReply {
    struct Item: Equatable {
        var granted: Int64
        var retry: Int64
        /// Permits that others hold as leases, and what the caller was given.
        var others: Int64 = 0
        var leased: Int64 = 0
        var leaseEnd: Int64 = 0
        var remaining: [Int64] = []
        var resets: [Int64] = []
    }

    let now: Int64
    var items: [Item] = []

    /// Nil when the shape is not the one promised for the call.
    init?(_ text: String, to call: ScriptCall) {
        let numbers = text.split(separator: ",").map { Int64($0) }
        guard !numbers.contains(nil),
            numbers.count == 2 + call.items.reduce(0, { $0 + 5 + 2 * $1.plan.count })
        else { return nil }
        var rest = numbers.compactMap(\.self)[...]
        now = rest.removeFirst()
        rest.removeFirst()
        for item in call.items {
            var read = Item(granted: rest.removeFirst(), retry: rest.removeFirst())
            read.others = rest.removeFirst()
            read.leased = rest.removeFirst()
            read.leaseEnd = rest.removeFirst()
            for _ in 0..<item.plan.count {
                read.remaining.append(rest.removeFirst())
                read.resets.append(rest.removeFirst())
            }
            items.append(read)
        }
    }
}
