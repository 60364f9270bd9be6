package import Configuration
import Keys
package import Limits
package import Reactor
package import Redis
import Synchronization
package import TLS

/// A line for the program's own log, written by the control thread.
package struct Report: Sendable {
    package enum Level: Sendable { case info, warning, error }
    package var level: Level
    package var text: String
}

/// What the numbers in log records stand for.
package struct LogNames: Sendable {
    package var routes: [String]
    package var upstreams: [String]
    /// As the configuration writes them.
    package var endpoints: [String]

    init(routes: [String] = [], upstreams: [String] = [], endpoints: [String] = []) {
        self.routes = routes
        self.upstreams = upstreams
        self.endpoints = endpoints
    }

    init(_ numbers: PlanNumbers) {
        self.init(
            routes: numbers.routes.names, upstreams: numbers.upstreams.names,
            // Behind the name of the upstream.
            endpoints: numbers.endpoints.names.map { name in
                name.firstIndex(of: " ").map { String(name[name.index(after: $0)...]) } ?? name
            })
    }
}

/// What workers and the control thread share: nothing here is touched by an ordinary call except the window
/// table.
package final class SharedState: Sendable {
    /// Kinds of reports that are remembered in order to repeat none of them too often.
    private static let reportKindsMax = 512
    /// Reports that wait for a log that nobody reads; later ones are dropped.
    private static let reportsMax = 1_024
    /// Notes of use that wait for the store; what is beyond is noted a minute later.
    private static let seenMax = 65_536

    /// This gateway among those that share its store: the host's name, the process's number, and chance.
    package let nodeName: String
    package let tickets: TicketKeys
    package let windows: WindowTable
    let failures: FailureLimiter
    let knownKeys: KnownKeys
    let sipKey: SipKey
    let accountKey: SipKey
    let pepper: [UInt8]?
    package let accessLog: AccessLogQueue
    /// Records of sampled calls.
    package let spans: AccessLogQueue
    package let reports: Mailbox<Report>
    package let exposures: ExposureQueue
    private let exposed = Atomic<UInt64>(0)
    private let lostLines = Atomic<UInt64>(0)
    private let lostSpans = Atomic<UInt64>(0)
    private let sentSpans = Atomic<UInt64>(0)
    private let changesHeard = Atomic<Int64>(0)
    private let liveNodeCount = Atomic<Int>(1)
    package let storeClock = SharedStoreClock()
    private let storeAddressesCell = Mutex<[SocketAddress]>([])
    let generations = StoreGenerations()
    let rollCall = RollCall()
    private let topologyCell = Mutex<StoreTopology?>(nil)
    /// Signalled by `requestTopology`.
    package let topologyRequests: Wakeup
    private let namesCell = Mutex(LogNames())
    private let seen = Mutex<[String: Int64]>([:])
    private let calls = Mutex<[String: Int64]>([:])
    private let dueKeys = Atomic<Int>(-1)
    private let lastReported = Mutex<[String: Int64]>([:])

    package init(_ configuration: GatewayConfiguration, _ tickets: TicketKeys) throws(SystemError) {
        let host = ProcessLimits.hostLabel
        nodeName =
            (host.isEmpty ? "" : host + "-") + "\(ProcessLimits.processIdentifier)-"
            + String(RandomSource.word() & 0xFFFF_FFFF, radix: 16)
        self.tickets = tickets
        windows = WindowTable(accounts: 1_000_000)
        failures = FailureLimiter(
            limitPerMinute: configuration.failedAuthenticationsPerMinute, addresses: 262_144)
        knownKeys = KnownKeys(entries: configuration.keys.cacheEntries)
        sipKey = SipKey(RandomSource.word(), RandomSource.word())
        accountKey = SipKey(RandomSource.word(), RandomSource.word())
        pepper = configuration.keys.pepper.map { Array($0.reveal().utf8) }
        accessLog = try AccessLogQueue()
        spans = try AccessLogQueue()
        reports = try Mailbox()
        exposures = try ExposureQueue()
        topologyRequests = try Wakeup()
    }

    func hash(account: String) -> Fingerprint { accountKey.hash(Array(account.utf8).span) }

    /// What an account has spent of these limits in this process: instants with permits, the oldest first.
    package func spent(
        byAccount account: String, _ limits: LimitSpecification
    ) -> [[(atMicroseconds: Int64, permits: Int64)]] {
        windows.contents(account: hash(account: account).words, plan: limits.plan)
    }

    /// Has a line logged, but the same line only once in `seconds`.
    package func report(_ level: Report.Level, _ text: String, every seconds: Int64) {
        let now = WallClock.nowSeconds()
        let isDue = lastReported.withLock { last in
            if let before = last[text], now - before < seconds { return false }
            if last.count >= Self.reportKindsMax { last.removeAll() }
            last[text] = now
            return true
        }
        if isDue { reports.post(Report(level: level, text: text), atMost: Self.reportsMax) }
    }

    func noteSeen(_ id: String, atSeconds second: Int64) {
        seen.withLock { seen in
            if seen.count < Self.seenMax { seen[id] = second }
        }
    }

    /// Adds calls of a key that has been replaced.
    func noteCalls(_ id: String, _ count: Int64, atSeconds second: Int64) {
        noteSeen(id, atSeconds: second)
        calls.withLock { calls in
            if calls.count < Self.seenMax || calls[id] != nil { calls[id, default: 0] += count }
        }
    }

    /// Calls of replaced keys since the last call.
    package func takeCalls() -> [String: Int64] {
        calls.withLock { calls in
            let taken = calls
            calls = [:]
            return taken
        }
    }

    /// Takes calls back that could not be written down.
    package func returnCalls(_ returned: [String: Int64]) {
        calls.withLock { calls in
            for (id, count) in returned where calls.count < Self.seenMax || calls[id] != nil {
                calls[id, default: 0] += count
            }
        }
    }

    /// Usable keys that are due for rotation, as last counted; nil before that.
    package var keysDueForRotation: Int? {
        get {
            let count = dueKeys.load(ordering: .relaxed)
            return count < 0 ? nil : count
        }
        set { dueKeys.store(newValue ?? -1, ordering: .relaxed) }
    }

    /// Keys that were in use since the last call, with the second of their latest use.
    package func takeSeen() -> [String: Int64] {
        seen.withLock { seen in
            let taken = seen
            seen = [:]
            return taken
        }
    }

    func noteExposure(_ key: ExposedKey) { exposures.post(key) }

    /// Gateways that share the store, this one included; the last number known when it is away.
    package var liveNodes: Int {
        get { max(1, liveNodeCount.load(ordering: .relaxed)) }
        set { liveNodeCount.store(newValue, ordering: .relaxed) }
    }

    /// The latest instant, on the monotonic clock in microseconds, up to which every change of a key is known
    /// to have been heard; 0 before the first.
    package var changesHeardMicroseconds: Int64 {
        get { changesHeard.load(ordering: .relaxed) }
        set { changesHeard.store(newValue, ordering: .relaxed) }
    }

    /// What the numbers in log records stand for at present.
    package internal(set) var names: LogNames {
        get { namesCell.withLock { $0 } }
        set { namesCell.withLock { $0 = newValue } }
    }

    /// Where the store's name leads; looked up off the workers.
    package var storeAddresses: [SocketAddress] {
        get { storeAddressesCell.withLock { $0 } }
        set { storeAddressesCell.withLock { $0 = newValue } }
    }

    /// The masters that a sentinel or a cluster has named last; nil before the first, and without either.
    package var storeTopology: StoreTopology? {
        get { topologyCell.withLock { $0 } }
        set { topologyCell.withLock { $0 = newValue } }
    }

    /// How often the store may have lost its latest writes, by a failover or a restart: zero until the first.
    ///
    /// For one window after a change the windows in Redis may hold fewer permits than were granted, so that a
    /// limit is kept only by whoever counts its own grants beside Redis: see `isCautious`. Noticed by the
    /// first worker that reaches the new master, before it debits there.
    package var storeGeneration: Int { generations.generation }
    /// When that was last noticed, on the monotonic clock in microseconds; 0 when it never was.
    package var storeGenerationMicroseconds: Int64 { generations.latestMicroseconds }

    /// Has the masters asked for at once: a connection was lost, or a command was sent elsewhere.
    func requestTopology() { topologyRequests.signal() }

    /// Access lines that reached the writer and could not be written.
    package var lostLineCount: UInt64 { lostLines.load(ordering: .relaxed) }

    package func countLostLines(_ count: Int) { lostLines.add(UInt64(count), ordering: .relaxed) }

    /// Spans that the exporter has given up, and those that the collector has taken.
    package var lostSpanCount: UInt64 { lostSpans.load(ordering: .relaxed) }
    package var sentSpanCount: UInt64 { sentSpans.load(ordering: .relaxed) }

    package func countSpans(lost: Int = 0, sent: Int = 0) {
        lostSpans.add(UInt64(lost), ordering: .relaxed)
        sentSpans.add(UInt64(sent), ordering: .relaxed)
    }

    /// Existing keys that have arrived in clear.
    package var exposedCount: UInt64 { exposed.load(ordering: .relaxed) }

    /// Counts a key that exists and has arrived in clear.
    package func countExposure() { exposed.add(1, ordering: .relaxed) }

    /// The credentials that have arrived in clear since the last call.
    package func takeExposures() -> [ExposedKey] { exposures.takeAll() }

    /// Those for which there was no room since the last call.
    package func takeDroppedExposures() -> Int { exposures.takeDropped() }
}
