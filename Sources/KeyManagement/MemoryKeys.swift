package import Keys
package import Limits
import Reactor
import Redis

// The store of a gateway that has none. What key management asks of Redis is little; a process that keeps its
// keys in memory does these commands itself, so that every rule about keys holds there as well.

/// Keys that live as long as the process. For one thread.
package final class MemoryKeys {
    /// Most keys, revoked ones included: who has more has a store.
    package static let keysMax = 1_000
    /// Lines of the trail that are kept.
    private static let linesMax = 10_000

    /// What an account has spent of limits: instants with permits for each window, the oldest first.
    package var spent:
        (_ account: String, LimitSpecification) -> [[(atMicroseconds: Int64, permits: Int64)]] = {
            _, _ in []
        }

    private var strings: [String: (value: String, endsSeconds: Int64)] = [:]
    private var hashes: [String: [String: String]] = [:]
    /// The newest first, and among those of one second the last in the order of their bytes.
    private var index: [(score: Int64, id: String)] = []
    /// The oldest first.
    private var trail: [(milliseconds: Int64, number: Int64, fields: [String])] = []
    private let recordPrefix: String
    private let seenName: String
    private let callsName: String
    private var hasChanged = false

    /// - Parameter prefix: of every name.
    package init(prefix: String) {
        recordPrefix = "\(prefix)key:"
        seenName = "\(prefix)seen"
        callsName = "\(prefix)calls"
    }

    // MARK: What the gateway has to know

    /// Whether a key is one of these.
    package func holds(_ digest: Digest256) -> Bool { hashes[recordPrefix + digest.hexadecimal] != nil }

    /// All records, when any of them has changed since the last call.
    package func takeChange() -> [KeyRecord]? {
        guard hasChanged else { return nil }
        hasChanged = false
        return hashes.compactMap { name, fields in
            guard name.hasPrefix(recordPrefix),
                let digest = Digest256(hex: String(name.dropFirst(recordPrefix.count)))
            else { return nil }
            return StoredKey(digest, fields.map { ($0.key, $0.value) })?.record
        }
    }

    /// Writes down when keys were last used, and how often those that have been replaced.
    package func note(seen: [String: Int64], calls: [String: Int64]) {
        for (id, second) in seen { hashes[seenName, default: [:]][id] = "\(second)" }
        for (id, count) in calls {
            let before = hashes[callsName]?[id].flatMap { Int64($0) } ?? 0
            hashes[callsName, default: [:]][id] = "\(before + count)"
        }
    }

    // MARK: Reading

    /// The reply to a command that reads; of any other, an error.
    func reply(to command: [String]) -> RedisValue {
        switch command[0] {
        case "GET": Self.text(string(command[1]))
        case "MGET": .array(command.dropFirst().map { Self.text(string($0)) })
        case "HGET": Self.text(hashes[command[1]]?[command[2]])
        case "HMGET": .array(command.dropFirst(2).map { Self.text(hashes[command[1]]?[$0]) })
        case "HGETALL":
            .array((hashes[command[1]] ?? [:]).flatMap { [Self.text($0.key), Self.text($0.value)] })
        case "ZREVRANK":
            index.firstIndex { $0.id == command[2] }.map { .integer(Int64($0)) } ?? .null
        case "ZCOUNT": .integer(Int64(index.count { $0.score > Int64(command[2].dropFirst()) ?? .max }))
        case "ZREVRANGE": range(command)
        case "XREVRANGE": lines(command)
        default: .error("ERR the memory store does not know \(command[0])")
        }
    }

    private static func text(_ value: String?) -> RedisValue {
        value.map { .string(Array($0.utf8)) } ?? .null
    }

    private func string(_ name: String) -> String? {
        strings[name].flatMap { $0.endsSeconds > WallClock.nowSeconds() ? $0.value : nil }
    }

    private func range(_ command: [String]) -> RedisValue {
        guard let first = Int(command[2]), let last = Int(command[3]), first < index.count else {
            return .array([])
        }
        return .array(
            index[first...min(last, index.count - 1)].flatMap {
                [Self.text($0.id), Self.text("\($0.score)")]
            })
    }

    private func lines(_ command: [String]) -> RedisValue {
        let parts = command[2].dropFirst().split(separator: "-").compactMap { Int64($0) }
        let isBounded = command[2].hasPrefix("(") && parts.count == 2
        let found = trail.reversed().filter { line in
            !isBounded || (line.milliseconds, line.number) < (parts[0], parts[1])
        }
        return .array(
            found.prefix(Int(command[5]) ?? 0).map { line in
                .array([
                    Self.text("\(line.milliseconds)-\(line.number)"), .array(line.fields.map(Self.text)),
                ])
            })
    }

    // MARK: Writing

    /// Does all of `steps`, or none.
    ///
    /// - Returns: 0, or the number of the condition that does not hold.
    func apply(_ steps: [Step]) throws(KeyStoreProblem) -> Int {
        var checked = 0
        for step in steps {
            guard let check = step.check else { continue }
            checked += 1
            guard holds(check, of: step.key) else { return checked }
        }
        let adds = steps.contains { $0.writes.contains { $0[0] == "ZADD" } }
        guard !adds || index.count < Self.keysMax else {
            throw .refused("the memory store holds \(Self.keysMax) keys; configure a store for more")
        }
        for step in steps {
            for write in step.writes { carryOut(write, on: step.key) }
            if step.key.hasPrefix(recordPrefix) { hasChanged = true }
        }
        return 0
    }

    private func holds(_ check: Step.Check, of name: String) -> Bool {
        switch check {
        case .absent: string(name) == nil && hashes[name] == nil
        case .exists: string(name) != nil || hashes[name] != nil
        case .text(let wanted): string(name) == wanted
        case .fields(let wanted): wanted.allSatisfy { (hashes[name]?[$0.name] ?? "") == $0.value }
        }
    }

    private func carryOut(_ write: [String], on name: String) {
        switch write[0] {
        case "SET":
            let now = WallClock.nowSeconds()
            if write.count > 3 { strings = strings.filter { $0.value.endsSeconds > now } }
            strings[name] = (write[1], write.count > 3 ? now + (Int64(write[3]) ?? 0) : .max)
        case "HSET":
            for place in stride(from: 1, to: write.count - 1, by: 2) {
                hashes[name, default: [:]][write[place]] = write[place + 1]
            }
        case "HDEL": for field in write.dropFirst() { hashes[name]?[field] = nil }
        case "ZADD":
            let entry = (score: Int64(write[1]) ?? 0, id: write[2])
            let place = index.firstIndex { ($0.score, $0.id) < (entry.score, entry.id) } ?? index.count
            index.insert(entry, at: place)
        case "XADD":
            let last = trail.last.map { ($0.milliseconds, $0.number) } ?? (0, 0)
            let now = max(WallClock.nowSeconds() * 1_000, last.0)
            let fields = Array(write.drop { $0 != "*" }.dropFirst())
            trail.append((now, now == last.0 ? last.1 + 1 : 0, fields))
            if trail.count > Self.linesMax { trail.removeFirst() }
        default: preconditionFailure("a step writes with \(write[0])")
        }
    }
}
