import Configuration
import Keys
package import Limits
import Reactor
import Redis

/// What one window of an account holds at the moment of asking, as the limiter keeps it in the store.
package struct WindowUse: Sendable, Equatable {
    /// Permits and length.
    package var window: Window
    /// Permits that count against it, those on lease included.
    package var used: Int64
    /// Permits that gateways hold on lease: they count until it is told what was spent of them.
    package var leased: Int64
    /// The same by gateway, as named in `gateway:nodes`, and the microseconds until the last lease ends; in
    /// order of names.
    package var holders: [Holder] = []
    /// Microseconds until the next permit is free again; nil when none is taken.
    package var nextPermitInMicroseconds: Int64?
    /// Microseconds until the call that was asked for fits, 0 when it fits now; nil when it never does.
    package var fitsInMicroseconds: Int64?
    /// Permits by part of the window, the oldest first; the last part ends now.
    package var course: [Int64]

    /// A gateway that holds permits on lease.
    package struct Holder: Sendable, Equatable {
        package var node: String
        package var permits: Int64
        package var endsInMicroseconds: Int64
    }

    /// Parts of a window in `course`.
    package static let courseParts = 64

    /// Permits left, never below 0.
    package var remaining: Int64 { max(0, window.limit - used) }
}

/// The windows of one policy: a tier, or limits of a key's own.
package struct PolicyUse: Sendable {
    /// The tier, or `custom`.
    package var name: String
    /// The limits as written.
    package var limits: String
    /// Ids of the account's usable keys that it binds; at most `AccountLimits.keysMax`.
    package var keys: [String]
    /// All of them hold together.
    package var windows: [WindowUse]
}

/// What an account may still do.
package struct AccountLimits: Sendable {
    /// Ids that are named.
    package static let keysMax = 100

    /// The account.
    package var account: String
    /// As many as its usable keys have different limits.
    package var policies: [PolicyUse]
}

/// The keys of an account, as they were found not long ago.
struct KnownMembers {
    /// Accounts that somebody looks at at the same time.
    static let accountsMax = 16
    /// What another program adds is seen after ten seconds at the latest.
    static let microseconds: Int64 = 10_000_000

    var keys: [(id: String, digest: String)]
    var untilMicroseconds: Int64
}

extension AccountLimits {
    /// A JSON object: the account, and its policies with their windows.
    package var json: String {
        let policies = policies.map { policy in
            let keys = policy.keys.map(KeyJSON.string).joined(separator: ",")
            let windows = policy.windows.map(\.json).joined(separator: ",")
            return "{\"name\":\(KeyJSON.string(policy.name)),\"limits\":\(KeyJSON.string(policy.limits)),"
                + "\"keys\":[\(keys)],\"windows\":[\(windows)]}"
        }
        return "{\"account\":\(KeyJSON.string(account)),\"policies\":[\(policies.joined(separator: ","))]}"
    }
}

extension KeyStore {
    /// A century in microseconds: a clock that was set further is another program's mistake.
    private static let skewMaximum: Int64 = 36_525 * 86_400_000_000

    /// The windows of an account, without changing them.
    ///
    /// - Throws: `.notFound` when no usable key is charged to it.
    package func limits(ofAccount account: String) throws(KeyStoreProblem) -> AccountLimits {
        guard !scanner.holdsKey(account) else { throw Self.holdsKey("account") }
        guard KeyRecord.isIdentifier(account) else {
            throw .invalid(field: "account", "an account is 1 to 128 printable characters without braces")
        }
        guard !isMemory else {
            throw .refused("with the memory store each gateway keeps its windows to itself")
        }
        var policies: [PolicyUse] = []
        for key in try usableKeys(ofAccount: account) {
            guard let (name, specification) = policy(of: key) else { continue }
            if let index = policies.firstIndex(where: { $0.name == name && $0.limits == specification.text })
            {
                if policies[index].keys.count < AccountLimits.keysMax {
                    policies[index].keys.append(key.record.id)
                }
                continue
            }
            let windows = try use(specification, account: account)
            policies.append(
                PolicyUse(name: name, limits: specification.text, keys: [key.record.id], windows: windows))
        }
        guard !policies.isEmpty else {
            throw .notFound("no usable key is charged to the account \(account)")
        }
        return AccountLimits(account: account, policies: policies)
    }

    /// To find the keys of an account is a walk through the whole index, and a page that shows a window asks
    /// every second. So those that were found are known for a while, and only their records are read again.
    private func usableKeys(ofAccount account: String) throws(KeyStoreProblem) -> [StoredKey] {
        let filter = KeyFilter(account: account, status: .active)
        let now = MonotonicClock.nowMicroseconds()
        if let known = knownMembers[account], now < known.untilMicroseconds {
            var keys = configuration.keys.staticKeys.map(StoredKey.init(declared:)).filter(filter.fits)
            for start in stride(from: 0, to: known.keys.count, by: Self.chunk) {
                let part = known.keys[start..<min(start + Self.chunk, known.keys.count)]
                keys += try read(Array(part)).filter(filter.fits)
            }
            if !keys.isEmpty { return keys }
        }
        var keys: [StoredKey] = []
        var cursor: String?
        repeat {
            let page = try list(filter, after: cursor, limit: Self.pageMax)
            keys += page.keys
            cursor = page.nextCursor
        } while cursor != nil
        if knownMembers.count >= KnownMembers.accountsMax { knownMembers = [:] }
        knownMembers[account] = KnownMembers(
            keys: keys.filter { !$0.isStatic }.map { ($0.record.id, $0.record.digest.hexadecimal) },
            untilMicroseconds: now + KnownMembers.microseconds)
        return keys
    }

    /// The windows that bind a key, nil when its limits cannot be read, so that it is refused.
    package func policy(of key: StoredKey) -> (name: String, limits: LimitSpecification)? {
        if let own = key.record.limits {
            guard let specification = try? LimitSpecification.parse(own) else { return nil }
            return ("custom", specification)
        }
        let tier = configuration.tiers.first { $0.name == key.record.tier }
        return tier.map { ($0.name, $0.limits) }
    }

    /// What the windows of an account hold under these limits.
    ///
    /// - Parameter cost: permits of the call that is asked for.
    package func use(
        _ limits: LimitSpecification, account: String, cost: Int64 = 1
    ) throws(KeyStoreProblem) -> [WindowUse] {
        if let memory = session?.memory {
            let now = MonotonicClock.nowMicroseconds()
            return zip(limits.windows, memory.spent(account, limits)).map { window, runs in
                WindowUse(
                    window, ["r:0"] + runs.map { "\($0.atMicroseconds):\($0.permits)" }, cost: cost,
                    nowMicroseconds: now)
            }
        }
        let names = limits.windows.map { "{\(account)}:\(Self.suffix(of: $0))" }
        // The clock of the Redis that holds the windows, wherever that is.
        let time = ["EVAL", "return redis.call('TIME')", "1", "\(prefix)limit:\(names[0])"]
        let replies = try runAll(
            [time] + names.map { ["LRANGE", "\(prefix)limit:\($0)", "0", "-1"] } + [
                ["GET", "\(prefix)clock"]
            ])
        // Windows go by the clock as it was before it was set.
        let skew = replies[1 + names.count].text.flatMap { StoreClock.Skew($0) } ?? .none
        guard let time = replies[0].elements, time.count == 2,
            let seconds = time[0].text.flatMap({ Int64($0) }),
            let part = time[1].text.flatMap({ Int64($0) })
        else { throw .unavailable("the store answered TIME with something else") }
        let now = seconds * 1_000_000 + part - max(-Self.skewMaximum, min(Self.skewMaximum, skew.high))
        var result: [WindowUse] = []
        for (index, window) in limits.windows.enumerated() {
            guard let entries = replies[1 + index].elements else {
                throw .unavailable("a window of the account cannot be read")
            }
            result.append(WindowUse(window, entries.compactMap(\.text), cost: cost, nowMicroseconds: now))
        }
        return result
    }

    /// `60s`, or `250ms` where seconds do not suffice: how the limiter names windows.
    private static func suffix(of window: Window) -> String {
        window.lengthMicroseconds % 1_000_000 == 0
            ? "\(window.lengthMicroseconds / 1_000_000)s" : "\(window.lengthMicroseconds / 1_000)ms"
    }
}

extension WindowUse {
    /// A JSON object; times in seconds.
    package var json: String {
        var members = [
            "\"limit\":\(window.limit)", "\"window\":\(Self.seconds(window.lengthMicroseconds))",
            "\"used\":\(used)", "\"leased\":\(leased)", "\"remaining\":\(remaining)",
        ]
        if let next = nextPermitInMicroseconds { members.append("\"next_permit_in\":\(Self.seconds(next))") }
        let leases = holders.map { holder in
            "{\"node\":\(KeyJSON.string(holder.node)),\"permits\":\(holder.permits),"
                + "\"ends_in\":\(Self.seconds(holder.endsInMicroseconds))}"
        }
        members.append("\"leases\":[\(leases.joined(separator: ","))]")
        members.append("\"course\":[\(course.map(String.init).joined(separator: ","))]")
        return "{" + members.joined(separator: ",") + "}"
    }

    private static func holders(
        _ leases: [(node: String, instant: Int64, permits: Int64)], _ now: Int64
    ) -> [Holder] {
        Dictionary(grouping: leases, by: \.node).map { node, leases in
            Holder(
                node: node, permits: leases.reduce(0) { $0 + $1.permits },
                endsInMicroseconds: max(0, (leases.map(\.instant).max() ?? now) - now))
        }.sorted { $0.node < $1.node }
    }

    private static func seconds(_ microseconds: Int64) -> String {
        let (whole, rest) = microseconds.quotientAndRemainder(dividingBy: 1_000_000)
        guard rest != 0 else { return "\(whole)" }
        let digits = "\(rest)"
        return "\(whole).\(String(repeating: "0", count: 6 - digits.count))\(digits)"
    }

    /// Reads a window as the limiter keeps it.
    ///
    /// - Parameters:
    ///   - entries: instants, or after a head, which tells of leases, runs `<instant>:<permits>`; the oldest
    ///     first. A lease is written down in full at its end at the latest. Instants and permits may be any
    ///     numbers when another program has written them: those that no limiter writes are taken for the
    ///     nearest that one does.
    init(_ window: Window, _ entries: [String], cost: Int64, nowMicroseconds now: Int64) {
        let horizon = now - window.lengthMicroseconds
        let latest = now + LimitSpecification.lengthMaximum
        func bounded(_ permits: Int64) -> Int64 { max(0, min(LimitSpecification.limitMaximum, permits)) }
        let isRuns = entries.first?.hasPrefix("r:") ?? false
        var runs: [(instant: Int64, permits: Int64)] = []
        for entry in isRuns ? entries.dropFirst() : entries[...] {
            let parts = entry.split(separator: ":")
            guard let instant = parts.first.flatMap({ Int64($0) }), instant >= horizon else { continue }
            let permits = isRuns ? parts.dropFirst().first.flatMap { Int64($0) } ?? 0 : 1
            runs.append((min(latest, instant), bounded(permits)))
        }
        func wait(until instant: Int64) -> Int64 { max(0, instant + window.lengthMicroseconds + 1 - now) }
        let held = HeldLease.held(inHead: entries.first ?? "").filter { $0.endMicroseconds >= horizon }.map {
            (node: $0.node, instant: min(latest, $0.endMicroseconds), permits: bounded($0.permits))
        }
        let leased = held.reduce(0) { $0 + $1.permits }
        let used = runs.reduce(leased) { $0 + $1.permits }
        var fits: Int64? = cost > window.limit ? nil : 0
        var excess = used + cost - window.limit
        let ends = held.map { (instant: $0.instant, permits: $0.permits) }
        for run in runs + ends.sorted(by: { $0.instant < $1.instant }) where fits != nil && excess > 0 {
            excess -= run.permits
            fits = wait(until: run.instant)
        }
        var course = [Int64](repeating: 0, count: Self.courseParts)
        for run in runs {
            let part = (run.instant - horizon) * Int64(Self.courseParts) / max(1, window.lengthMicroseconds)
            course[max(0, min(Self.courseParts - 1, Int(part)))] += run.permits
        }
        self.init(
            window: window, used: used, leased: leased, holders: Self.holders(held, now),
            nextPermitInMicroseconds: runs.first.map { wait(until: $0.instant) },
            fitsInMicroseconds: fits, course: course)
    }
}
