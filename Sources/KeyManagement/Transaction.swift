import Redis

// How a change is written.
//
// A change touches several names: the trail, the index, the record. Where one Redis holds them all, one
// script checks everything and then writes everything. In a cluster the names live in different slots, which
// no script spans; there each step is a script of its own, in the order in which they stand here. The order
// is what makes both right: the trail first, so that no change lacks its line; then the ways by which a key
// is found; and last the record, in one write. A program that dies in between leaves names that lead to
// nothing, and never a key that works and cannot be found.
//
// What is left where it dies in a cluster, and why that does no harm:
// - the claim of a name: it is held by an id without a key, which counts for a minute and then no more;
// - a line of the trail: the trail says more than was done, and never less;
// - an id, an entry of the index: they lead to no record, so that they are not shown and let nobody in;
// - a replacement's record, still switched off: it lets nobody in, and the old key can be replaced again;
// - the old key's `rotated_to`: it names a record that is switched off, which does not end the old key;
// - the replacement, switched on: the old key names it, and goes on as it was until it gets its end.

/// One name with what must be true of it, what is written to it, and what takes that back.
struct Step {
    /// A condition on a name.
    enum Check {
        /// There is no such name.
        case absent
        /// There is one.
        case exists
        /// A string, nil for none.
        case text(String?)
        /// Fields of a hash; an empty value stands for an absent field.
        case fields([(name: String, value: String)])
    }

    /// What a failed condition means to the caller.
    enum Part { case idempotency, name, trail, id, index, record, old }

    let part: Part
    let key: String
    var check: Check?
    /// Commands without their key, which comes second.
    var writes: [[String]]
    /// Commands that take the step back when a later one cannot be done.
    var undo: [[String]] = []

    init(_ part: Part, _ key: String, check: Check? = nil, _ writes: [[String]], undo: [[String]] = []) {
        self.part = part
        self.key = key
        self.check = check
        self.writes = writes
        self.undo = undo
    }
}

enum Transaction {
    /// First all conditions, then all commands. ARGV holds, for each: what it is, the number of its key, the
    /// number of its arguments, and these. The reply is 0, or the number of the condition that does not hold.
    static let script = #"""
        local p, checked = 1, 0
        local function take()
          local what, key, n = ARGV[p], KEYS[tonumber(ARGV[p + 1])], tonumber(ARGV[p + 2])
          local arguments = {}
          for i = 1, n do arguments[i] = ARGV[p + 2 + i] end
          p = p + 3 + n
          return what, key, arguments
        end
        while ARGV[p] and string.sub(ARGV[p], 1, 1) == '?' do
          local what, key, a = take()
          checked = checked + 1
          if what == '?absent' then
            if redis.call('EXISTS', key) == 1 then return checked end
          elseif what == '?exists' then
            if redis.call('EXISTS', key) == 0 then return checked end
          elseif what == '?text' then
            if redis.call('GET', key) ~= a[1] then return checked end
          else
            for i = 1, #a, 2 do
              if (redis.call('HGET', key, a[i]) or '') ~= a[i + 1] then return checked end
            end
          end
        end
        while ARGV[p] do
          local command, key, a = take()
          redis.call(command, key, unpack(a))
        end
        return 0
        """#

    /// The command that does all of `steps` at once.
    static func command(_ steps: [Step]) -> [String] {
        var command = ["EVAL", script, "\(steps.count)"] + steps.map(\.key)
        for (index, step) in steps.enumerated() {
            guard let check = step.check else { continue }
            switch check {
            case .absent, .text(nil): command += ["?absent", "\(index + 1)", "0"]
            case .exists: command += ["?exists", "\(index + 1)", "0"]
            case .text(let text?): command += ["?text", "\(index + 1)", "1", text]
            case .fields(let fields):
                command += ["?fields", "\(index + 1)", "\(2 * fields.count)"]
                command += fields.flatMap { [$0.name, $0.value] }
            }
        }
        for (index, step) in steps.enumerated() {
            for write in step.writes {
                command += [write[0], "\(index + 1)", "\(write.count - 1)"] + write.dropFirst()
            }
        }
        return command
    }
}

extension KeyStore {
    /// Does all of `steps`, or none.
    ///
    /// - Returns: nil when done, or the step whose condition does not hold.
    func commit(_ steps: [Step]) throws(KeyStoreProblem) -> Step.Part? {
        knownMembers = [:]
        guard spreads else {
            // What Redis refuses to write fails the script there: so the line of the trail is the first.
            let steps = steps.filter { $0.part == .trail } + steps.filter { $0.part != .trail }
            let failed = try evaluate(steps)
            let checks = steps.filter { $0.check != nil }
            return failed == 0 ? nil : checks[failed - 1].part
        }
        for (index, step) in steps.enumerated() {
            guard try evaluate([step]) != 0 else { continue }
            for done in steps[..<index].reversed() where !done.undo.isEmpty {
                _ = try evaluate([Step(done.part, done.key, done.undo)])
            }
            return step.part
        }
        return nil
    }

    private func evaluate(_ steps: [Step]) throws(KeyStoreProblem) -> Int {
        if let memory = session?.memory { return try memory.apply(steps) }
        let reply = try run(Transaction.command(steps))
        let checks = steps.filter { $0.check != nil }.count
        guard let number = reply.integer, (0...Int64(checks)).contains(number) else {
            throw .unavailable("the store answered a change with something else")
        }
        return Int(number)
    }
}
