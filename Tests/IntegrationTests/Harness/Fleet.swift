import Foundation
import Limits
import Synchronization
import TestSupport

/// What one call came to: its verdict fell between `sent` and `received`, in microseconds since the start.
struct Outcome: Sendable {
    var gateway: Int
    var sent: Int64
    var received: Int64
    /// 0 when the connection ended without an answer.
    var status: Int
    var retryAfter: Int?
}

/// Permits that a window lacks for a while, because whoever held them on lease could not report.
struct Stranding: Sendable {
    var from: Int64
    var until: Int64
    var permits: Int
}

/// Several gateways on one Redis, callers that hammer all of them, and every decision written down.
final class Fleet: Sendable {
    let redis: RedisServer
    let upstream: Upstream
    private let setup: Setup
    private let hosts: [NetworkHost]
    private let upstreams: [Upstream]
    private let gatewaySlots: Mutex<[Gateway]>
    private let outcomes = Collected<Outcome>()
    private let isOver = Mutex(false)
    private let threads = Mutex<[TestThread]>([])
    private let started = ContinuousClock.now
    /// Leases that were held when their holders could no longer report them.
    private let strandings = Collected<Stranding>()

    /// - Parameters:
    ///   - storePort: where the gateways look for Redis, if not at Redis itself.
    ///   - sentinels: who tells the gateways where Redis is.
    ///   - limits: of the one account's record, as written.
    ///   - hosts: where each of them lives, each beside an upstream of its own; empty is here.
    init(
        _ count: Int, limits: String, redis: RedisServer? = nil, storePort: UInt16? = nil,
        sentinels: RedisSentinels? = nil, workers: Int = 2, store: String = "", hosts: [NetworkHost] = []
    ) throws {
        let redis = try redis ?? sentinels?.master ?? RedisServer()
        self.redis = redis
        upstream = try Upstream()
        try redis.store(Self.key.secret, ["tier": "enterprise", "account": "fleet", "limits": limits])
        setup = Setup(upstream).with {
            $0.keys = []
            let url = sentinels?.url ?? "redis://127.0.0.1:\(storePort ?? redis.port)"
            $0.store = "url: \"\(url)\"\n\(store)"
            $0.workers = workers
        }
        let setup = setup
        self.hosts = hosts
        let upstreams = try hosts.map { try $0.inside { try Upstream() } }
        self.upstreams = upstreams
        gatewaySlots = Mutex(
            try (0..<count).map { number in
                guard !hosts.isEmpty else { return try Gateway(setup) }
                let own = setup.with {
                    $0.upstreams = [upstreams[number]]
                    $0.store = "url: \"redis://\(hosts[number].gatewayAddress):\(redis.port)\"\n\(store)"
                }
                return try hosts[number].inside { try Gateway(own) }
            })
        for number in gateways.indices {
            try Deadline(seconds: 5).wait("the store") { try isStoreUp(number) }
        }
    }

    static let key = TestKey(secret: "sk_live_fleet", id: "", account: "", tier: "")

    var gateways: [Gateway] { gatewaySlots.withLock { $0 } }
    var now: Int64 { Int64(started.duration(to: .now) / .microseconds(1)) }

    /// Another one in the place of a gateway that is gone.
    func replace(_ index: Int) throws {
        let fresh = try Gateway(setup)
        gatewaySlots.withLock { $0[index] = fresh }
    }

    /// Whether a gateway reaches Redis.
    func isStoreUp(_ number: Int) throws -> Bool {
        try at(number) { try gateways[number].metric("gateway_store_up") == 1 }
    }

    /// Does something where a gateway lives.
    func at<Result>(_ number: Int, _ body: () throws -> Result) throws -> Result {
        try hosts.isEmpty ? body() : hosts[number].inside(body)
    }

    /// Starts callers, so many at each gateway.
    ///
    /// - Parameter pauses: milliseconds between two calls of one caller, of which one is chosen each time.
    func hammer(_ callers: Int, pauses: [Int32] = [0]) {
        let indices = gateways.indices
        let fresh = indices.flatMap { index in
            (0..<callers).map { number in
                TestThread { [self] in call(index, pauses, seed: UInt64(index * 100 + number)) }
            }
        }
        threads.withLock { $0 += fresh }
    }

    private func call(_ index: Int, _ pauses: [Int32], seed: UInt64) {
        var random = Seeded(seed)
        while !isOver.withLock({ $0 }) {
            guard let client = try? at(index, { try gateways[index].connect() }) else { continue }
            while !isOver.withLock({ $0 }) {
                let sent = now
                let response = try? {
                    try client.send(Gateway.request(key: Self.key))
                    return try client.response()
                }()
                let retryAfter = response?["Retry-After"].flatMap { Int($0) }
                outcomes.append(contentsOf: [
                    Outcome(
                        gateway: index, sent: sent, received: now, status: response?.status ?? 0,
                        retryAfter: retryAfter)
                ])
                if response == nil { break }
                let pause = pauses[Int(random.next() % UInt64(pauses.count))]
                if pause > 0 { poll(nil, 0, pause) }
            }
        }
    }

    func wait(milliseconds: Int32) { poll(nil, 0, milliseconds) }

    /// These gateways are about to be unable, for so long, to report what they hold on lease of a window: it
    /// counts in full until a window after its end.
    func strand(_ gateways: [Gateway], window seconds: Int, milliseconds: Int64 = 0) throws {
        let head = try redis.command("LINDEX", "gateway:limit:{fleet}:\(seconds)s", "0")
        let processes = gateways.map { "\($0.child.processID)" }
        let permits = HeldLease.held(inHead: head).filter { lease in
            // The host's name, the process's number, and chance.
            processes.contains(lease.node.split(separator: "-").dropLast().last.map(String.init) ?? "")
        }.reduce(0) { $0 + Int($1.permits) }
        let length = Int64(seconds) * 1_000_000
        let end = now + milliseconds * 1_000 + min(500_000, max(10_000, length / 32))
        strandings.append(contentsOf: [Stranding(from: now, until: end + length, permits: permits)])
    }

    var stranded: [Stranding] { strandings.values }

    /// Ends the callers.
    func finish() throws -> [Outcome] {
        isOver.withLock { $0 = true }
        for thread in threads.withLock({ $0 }) { try thread.join(within: 30) }
        return outcomes.values
    }

    /// Calls of the script that Redis has carried out.
    func scriptCalls() throws -> Int { try redis.calls(of: "evalsha") }
}

extension Promise {
    /// Refusals whose `Retry-After` was surely too early or too late, as if nobody else had spent meanwhile:
    /// after it the window was still full of calls let in before the refusal, or it had room a whole second,
    /// and `slack` microseconds, before.
    static func falseRetries(
        _ outcomes: [Outcome], limit: Int, window: Int64, slack: Int64
    ) -> (early: Int, late: Int, checked: Int) {
        let admitted = outcomes.filter { $0.status == 200 }
        let sent = admitted.map(\.sent).sorted()
        let received = admitted.map(\.received).sorted()
        func count(_ instants: [Int64], upTo last: Int64) -> Int {
            var (low, high) = (0, instants.count)
            while low < high {
                let middle = (low + high) / 2
                if instants[middle] <= last { low = middle + 1 } else { high = middle }
            }
            return low
        }
        var (early, late, checked) = (0, 0, 0)
        for refusal in outcomes where refusal.status == 429 {
            guard let seconds = refusal.retryAfter.map({ Int64($0) }) else { continue }
            checked += 1
            let horizon = refusal.received + seconds * 1_000_000 - window
            if count(received, upTo: refusal.sent) - count(sent, upTo: horizon) >= limit { early += 1 }
            let before = refusal.sent + (seconds - 1) * 1_000_000 - slack - window
            let held = count(sent, upTo: refusal.received) - count(received, upTo: before)
            if seconds > 1, held < limit { late += 1 }
        }
        return (early, late, checked)
    }
}

/// What can be said of decisions from outside, where only the call and its answer are seen.
enum Promise {
    /// The most calls that were surely let in within one window: those that began and were answered in it.
    static func worst(_ outcomes: [Outcome], _ length: Int64) -> Int {
        let admitted = outcomes.filter { $0.status == 200 }.sorted { $0.sent < $1.sent }
        var worst = 0
        // A window that holds the most begins where a call begins.
        var ends: [Int64] = []
        var first = 0
        for (index, start) in admitted.enumerated() {
            while first < admitted.count, admitted[first].sent <= start.sent + length {
                ends.append(admitted[first].received)
                first += 1
            }
            var count = 0
            for later in index..<first where ends[later] <= start.sent + length { count += 1 }
            worst = max(worst, count)
        }
        return worst
    }

    /// How many of the calls that were decided one exact window lets in that lacks what is stranded.
    static func ideal(
        _ outcomes: [Outcome], limit: Int, window: Int64, without stranded: [Stranding]
    ) -> Int {
        let decided = outcomes.filter { $0.status == 200 || $0.status == 429 }.map(\.received).sorted()
        var changes = stranded.map { ($0.from, $0.permits) } + stranded.map { ($0.until, -$0.permits) }
        changes.sort { $0.0 > $1.0 }
        var missing = 0
        var admitted: [Int64] = []
        var first = 0
        for instant in decided {
            while let change = changes.last, change.0 <= instant {
                missing += change.1
                changes.removeLast()
            }
            while first < admitted.count, admitted[first] < instant - window { first += 1 }
            if admitted.count - first + missing < limit { admitted.append(instant) }
        }
        return admitted.count
    }
}
