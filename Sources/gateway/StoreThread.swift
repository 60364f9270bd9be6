import Configuration
import DataPlane
import KeyManagement
import Keys
import Limits
import Reactor
import Redis
import Synchronization

/// The thread that may wait for Redis: it listens for changed records and tells the workers, beats this
/// node's heart, and decides about keys that came in clear.
final class StoreThread: @unchecked Sendable {
    // `@unchecked`: after `start` only its own threads touch what is not atomic.
    /// Between two beats; a node that misses three is no longer counted.
    private static let beatMilliseconds = 1_000
    /// Between two calls to compare what is known of Redis's clock: while that is made faster, each answer
    /// tells of another step.
    private static let callMicroseconds: Int64 = 100_000
    private static let nodeSeconds: Int64 = 3
    /// Exposed keys between two looks at what else is due.
    private static let exposuresPerRound = 16

    private let server: GatewayServer
    private let options: StoreOptions?
    private let stopping: Wakeup
    private let node: String
    private var threads: [ThreadHandle] = []
    /// Gateways alive at the last beats.
    private var counts: [(at: Int64, count: Int)] = []
    /// When a beat failed last.
    private var missedMicroseconds = Int64.min / 2
    /// Keys that came in clear and stand in the trail.
    private var knownExposures = KnownExposures()
    /// Credentials that came in clear faster than the store could be asked, since this was last reported.
    private var droppedExposures = 0
    private var droppedReportedMicroseconds = Int64.min / 2
    /// By which skew the gateways go, and when the others were called last to compare it.
    private var agreement = ClockAgreement()
    private var calledMicroseconds = Int64.min / 2
    /// Whether another gateway has noticed that Redis's clock had been set.
    private let isCalled = Atomic<Bool>(false)

    init(_ configuration: GatewayConfiguration, _ server: GatewayServer) throws(ServerProblem) {
        self.server = server
        options = StoreOptions(configuration.store)
        do {
            stopping = try Wakeup()
        } catch {
            throw ServerProblem("the system refuses an event descriptor: \(error.reason)")
        }
        node = server.shared.nodeName
    }

    /// The one in use; what the store itself is made of never changes.
    private var configuration: GatewayConfiguration { server.plan.configuration }

    /// The masters of a store that has several servers are asked for once before the workers start.
    func start() throws(ServerProblem) {
        if let options, let client = try? RedisClient(options, timeoutMilliseconds: 500) {
            try? adoptClock(client)
        }
        do {
            if let options, options.isFollowing {
                let watch = StoreWatch(options, server)
                watch.look()
                threads.append(
                    try Thread.start(name: "masters") { [stopping] in watch.run(until: stopping) })
            }
            threads.append(try Thread.start(name: "store") { [self] in serve() })
            if let options {
                threads.append(try Thread.start(name: "invalidation") { [self] in listen(options) })
                let chores = KeyChores(configuration, server)
                threads.append(try Thread.start(name: "keys") { [stopping] in chores.run(until: stopping) })
            }
        } catch {
            throw ServerProblem("the system refuses a thread: \(error.reason)")
        }
    }

    func stop() {
        stopping.signal()
        for thread in threads { thread.join() }
        threads = []
    }

    private var isStopping: Bool { Readiness.pause(milliseconds: 0, unless: stopping) }

    // MARK: Heartbeat and exposed keys

    private func serve() {
        var client: RedisClient?
        var topology: StoreTopology?
        var exposed: [ExposedKey] = []
        var lastBeat: Int64 = 0
        while !isStopping {
            // A master that was replaced as planned lives on for a while, and nobody else beats there.
            if server.shared.storeTopology != topology {
                topology = server.shared.storeTopology
                client = nil
            }
            if exposed.isEmpty { exposed = server.shared.takeExposures() }
            handle(&exposed)
            let now = MonotonicClock.nowMicroseconds()
            reportDrops(now)
            let isDue = now - lastBeat >= Int64(Self.beatMilliseconds) * 900
            let isCalled = isCalled.exchange(false, ordering: .acquiringAndReleasing)
            let isNews = hasOneClock && (isCalled || !clock.isKnown || agreement.isNews(clock))
            if let options, isDue || isNews {
                lastBeat = now
                do {
                    let current = try client ?? connect(options)
                    client = current
                    try beat(current)
                } catch {
                    client = nil
                    missedMicroseconds = MonotonicClock.nowMicroseconds()
                }
            }
            // Until Redis has told its time the workers wait for it.
            let pause = hasOneClock && !clock.isKnown ? 100 : Self.beatMilliseconds
            Readiness.wait(
                server.shared.exposures.wakeup.descriptor, stopping.descriptor,
                timeoutMilliseconds: exposed.isEmpty ? pause : 0)
        }
        if !exposed.isEmpty {
            server.shared.report(
                .warning, "\(exposed.count) credentials came in clear and have not been looked up", every: 0)
        }
        if let client { _ = try? client.command(["ZREM", nodes, node]) }
    }

    /// A Redis that is new to us is asked for its settings, be it after an outage or a failover.
    private func connect(_ options: StoreOptions) throws(RedisError) -> RedisClient {
        let client = try RedisClient(options, timeoutMilliseconds: 1_000)
        try adoptClock(client)
        for warning in StoreCheck.warnings(client) { server.shared.report(.warning, warning, every: 3_600) }
        return client
    }

    private var nodes: String { configuration.store.prefix + "nodes" }

    private var clockName: String { configuration.store.prefix + "clock" }

    private var clock: StoreClock { server.shared.storeClock.current }

    /// Masters of a cluster have a clock each; the workers follow them by themselves.
    private var hasOneClock: Bool {
        if case .cluster = options?.transport { return false }
        return options != nil
    }

    /// Other gateways may know that Redis's clock has been set: windows go on by the old one.
    private func adoptClock(_ client: RedisClient) throws(RedisError) {
        if hasOneClock, !clock.isKnown { _ = try time(client) }
    }

    /// Redis's time in seconds, without the jumps that it made.
    private func time(_ client: RedisClient) throws(RedisError) -> Int64 {
        guard hasOneClock else { return try Self.instant(client.command(["TIME"])) / 1_000_000 }
        let asked = MonotonicClock.nowMicroseconds()
        // What is written was written before the time is told: a step that it is about shows in the time.
        let replies = try client.pipeline([["GET", clockName], ["TIME"]])
        let answered = MonotonicClock.nowMicroseconds()
        let told = try Self.instant(replies[1])
        // One by which there would be no time yet is nobody's.
        let written = replies[0].text.flatMap { StoreClock.Skew($0) }.flatMap { told > $0.high ? $0 : nil }
        if let written { server.shared.storeClock.adopt(written) }
        let (known, step) = server.shared.storeClock.observe(told, asked: asked, answered: answered)
        if step != 0 {
            server.shared.report(
                .error,
                "store: Redis's clock has been set by \(step / 1_000) ms; limits go on as if it had not",
                every: 10)
        }
        let move = agreement.move(written: written, known, now: answered)
        switch move {
        case .none: break
        case .tell(let skew, let isCalling):
            _ = try client.command(["SET", clockName, "\(skew)"])
            if isCalling { try callOthers(client, answered) }
        case .follow(let skew): server.shared.storeClock.follow(skew, knowing: known)
        case .yield(let skew):
            server.shared.storeClock.beginAnew(skew, told: told, asked: asked, answered: answered)
            server.shared.report(
                .error,
                "store: Redis's clock has not been set by \((known.skew.low - skew.low) / 1_000) ms, other "
                    + "gateways say: this machine's stood still; limits go on by theirs", every: 10)
        }
        agreement.made(move, known, now: answered)
        return (told - clock.skew.low) / 1_000_000
    }

    private func callOthers(_ client: RedisClient, _ now: Int64) throws(RedisError) {
        guard now - calledMicroseconds >= Self.callMicroseconds else { return }
        calledMicroseconds = now
        let channel = TakeScript.recallChannel(prefix: configuration.store.prefix)
        // Whoever may not call is heard with the next beat.
        _ = try client.pipeline([["PUBLISH", channel, clockName]])
    }

    /// Microseconds of Redis's time.
    private static func instant(_ reply: RedisValue) throws(RedisError) -> Int64 {
        guard let parts = reply.elements, parts.count == 2,
            let seconds = parts[0].text.flatMap({ Int64($0) }),
            let rest = parts[1].text.flatMap({ Int64($0) })
        else { throw .protocolViolation("the answer to TIME is no time") }
        return seconds * 1_000_000 + rest
    }

    /// On Redis's clock: those of the nodes need not agree.
    private func beat(_ client: RedisClient) throws(RedisError) {
        let now = try time(client)
        let values = try client.pipeline([
            ["ZADD", nodes, "\(now)", node],
            ["ZREMRANGEBYSCORE", nodes, "-inf", "\(now - 10 * Self.nodeSeconds)"],
            ["ZCOUNT", nodes, "\(now - Self.nodeSeconds)", "+inf"],
        ])
        if let count = values[2].integer {
            // A gateway whose heart is not heard may be on its way back, and a Redis that has lost everything
            // knows of nobody at first: the share of each grows only when others have been away for long.
            let instant = MonotonicClock.nowMicroseconds()
            let horizon = instant - (Self.nodeSeconds + 1) * 1_000_000
            counts = counts.filter { $0.at > horizon } + [(instant, Int(count))]
            let isFresh = max(server.shared.storeGenerationMicroseconds, missedMicroseconds) > horizon
            let least = isFresh ? server.shared.liveNodes : 1
            server.shared.liveNodes = max(least, counts.map(\.count).max() ?? 1)
        }
        let seen = server.shared.takeSeen()
        guard !seen.isEmpty else { return }
        var command = ["HSET", configuration.store.prefix + "seen"]
        for (id, second) in seen { command += [id, "\(second)"] }
        _ = try client.command(command)
    }

    /// The callers have had their answers; what happens to the keys is nobody's business but the operator's.
    /// A few at a time, and no more after one at which the store failed: the heart has to go on beating.
    private func handle(_ exposed: inout [ExposedKey]) {
        guard !exposed.isEmpty else { return }
        var count = 0
        let deadline = MonotonicClock.nowMicroseconds() + Int64(Self.beatMilliseconds) * 1_000
        do throws(KeyStoreProblem) {
            let store = try KeyStore(configuration, timeoutMilliseconds: 1_000, connects: false)
            while count < min(exposed.count, Self.exposuresPerRound), !isStopping,
                MonotonicClock.nowMicroseconds() < deadline
            {
                count += 1
                try handle(exposed[count - 1], store)
            }
        } catch {
            count = max(count, 1)
            server.shared.report(
                .error, "a key came in clear, and the store failed: \(error.text)", every: 60)
        }
        exposed.removeFirst(count)
    }

    /// Once a minute, with the number.
    private func reportDrops(_ now: Int64) {
        droppedExposures += server.shared.takeDroppedExposures()
        guard droppedExposures > 0, now - droppedReportedMicroseconds >= 60_000_000 else { return }
        server.shared.report(
            .warning,
            "\(droppedExposures) credentials came in clear faster than the store can be asked, and have not "
                + "been looked up", every: 0)
        droppedExposures = 0
        droppedReportedMicroseconds = now
    }

    private func handle(_ exposed: ExposedKey, _ store: KeyStore) throws(KeyStoreProblem) {
        let revokes = configuration.keys.exposedKeys == .revoke
        let actor = KeyManagement.Actor(name: "gateway", origin: exposed.address.ipText)
        guard
            let record = try store.recordExposure(
                exposed.digest, revoking: revokes, known: &knownExposures, by: actor)
        else { return }
        server.shared.countExposure()
        let isRevoked = revokes && !configuration.keys.staticKeys.contains { $0.digest == exposed.digest }
        if isRevoked { server.invalidate(exposed.digest) }
        server.shared.report(
            .warning,
            "key \(record.id) came in clear from \(exposed.address.ipText)"
                + (isRevoked ? " and has been revoked" : ": replace it"), every: 60)
    }

    // MARK: Invalidation

    /// Tells the workers which records change. What happened while nobody listened is unknown, so that all
    /// they remember is asked for again when it is next used.
    private func listen(_ options: StoreOptions) {
        let prefix = configuration.store.prefix
        let channel = TakeScript.recallChannel(prefix: prefix)
        let tell: @Sendable (InvalidationNews) -> Void = { [self] news in take(news) }
        if options.isFollowing {
            let listeners = InvalidationListeners(
                options, prefix: "\(prefix)key:", recallChannel: channel, tell)
            listeners.run(until: stopping) { [server] in server.shared.storeTopology }
        } else {
            InvalidationListener(options, prefix: "\(prefix)key:", recallChannel: channel)
                .run(until: stopping, tell)
        }
    }

    private func take(_ news: InvalidationNews) {
        switch news {
        case .established:
            server.shared.changesHeardMicroseconds = MonotonicClock.nowMicroseconds()
            server.invalidateAll()
        case .everything: server.invalidateAll()
        case .recalled(let name):
            let key = String(decoding: name, as: UTF8.self)
            if key == clockName {
                isCalled.store(true, ordering: .releasing)
                server.shared.exposures.wakeup.signal()
            }
            if let account = TakeScript.account(inKey: key) { server.recall(account: account) }
        case .changed(let name):
            let digits = String(decoding: name.suffix(Digest256.hexadecimalCount), as: UTF8.self)
            if let digest = Digest256(hex: digits) { server.invalidate(digest) }
        case .verified(let sent): server.shared.changesHeardMicroseconds = sent
        case .lost(let error):
            server.invalidateAll()
            server.shared.report(
                .warning, "store: changes of keys are not heard: \(error.text)", every: 10)
        }
    }
}
