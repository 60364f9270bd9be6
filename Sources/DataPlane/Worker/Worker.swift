import Configuration
import HTTP2
import HTTPWire
import Keys
import Limits
import Reactor
import Redis
import Synchronization
import TLS

// One thread, one epoll, and everything a call needs. Workers share nothing on the way of a call except the
// window table of the memory store and the failure counts, which are sharded and locked for nanoseconds.
//
// Every event is one step: it reads, decides, and leaves what it produced in two scratch blocks, one for
// callers and one for upstreams. Small output waits there for the other steps of the turn; `finishStep` sends
// it all, one system call for each connection. Slots that die during a step are only marked; the end of the
// turn frees them, so no step can hold a slot that is gone.

/// What a worker changes from call to call; touched by its own thread only.
struct WorkerState {
    var nowMicroseconds: Int64 = 0
    var wallMicroseconds: Int64 = 0
    /// Second that `dateLine` shows.
    var dateSecond: Int64 = -1
    /// `Date: …` with its line end.
    var dateLine = Block.allocate(capacity: 64)
    var random: FastRandom
    /// Identifier of the request being read, at most `HardLimits.requestIDBytes`.
    var requestID = Block.allocate(capacity: HardLimits.requestIDBytes)
    var resumeQueue: [SlotReference] = []
    /// HTTP/2 connections with frames to send.
    var framesQueue: [SlotReference] = []
    /// Streams whose bytes have all gone out, or whose answer has ended, in the frames being written.
    var streamsSent: [SlotReference] = []
    /// The caller's or the upstream's connection whose frames are being read or written.
    var multiplexed = SlotReference.none
    var multiplexedUpstream = SlotReference.none
    /// The same for upstreams: connections with frames to send, streams whose bytes have gone out, and
    /// streams with something to read.
    var upstreamFramesQueue: [SlotReference] = []
    var upstreamStreamsSent: [SlotReference] = []
    var answersQueue: [SlotReference] = []
    /// Callers' connections and their streams that are open.
    var openConnections = 0
    var openStreams = 0
    var deadDownstreams: [SlotReference] = []
    var deadExchanges: [SlotReference] = []
    var deadUpstreams: [SlotReference] = []
    var expiredTimers: [Int] = []
    var isDraining = false
    var isStopping = false
    /// Not even Redis is told of the end.
    var isHurried = false
    var hasListeners = true
    /// Connections whose handshake has not ended, oldest first; those that have ended since are passed over.
    var handshakes = Ring(repeating: SlotReference.none, capacity: HardLimits.handshakeRow)
    var openHandshakes = 0
    /// Steps of handshakes in this turn, and whether the turn before had more than it could take.
    var handshakeSteps = 0
    var wasBusyShakingHands = false
    var pressure = MemoryPressure.none
    /// Calls that wait for a connection to their upstream.
    var queuedCalls = 0
    /// When accepting goes on after file descriptors ran out; 0 while it does.
    var acceptsAgainMicroseconds: Int64 = 0

    init(seed: UInt64) {
        random = FastRandom(seed: seed)
        resumeQueue.reserveCapacity(1_024)
        framesQueue.reserveCapacity(1_024)
        streamsSent.reserveCapacity(1_024)
        upstreamFramesQueue.reserveCapacity(1_024)
        upstreamStreamsSent.reserveCapacity(1_024)
        answersQueue.reserveCapacity(1_024)
        deadDownstreams.reserveCapacity(1_024)
        deadExchanges.reserveCapacity(1_024)
        deadUpstreams.reserveCapacity(1_024)
        expiredTimers.reserveCapacity(256)
    }
}

/// What other threads tell a worker.
enum WorkerMessage: Sendable {
    case drain
    case closeListeners
    case pressure(MemoryPressure)
    case releaseListeners
    /// End now; in a hurry without a word to Redis.
    case stop(isHurried: Bool)
    case health(endpoint: Int, isHealthy: Bool)
    /// What an endpoint's name stands for, and what it has not stood for in a while.
    case resolved(endpoint: Int, [SocketAddress], retired: [SocketAddress])
    /// The record of this digest has changed.
    case invalidate(Digest256)
    case invalidateAll
    /// Permits of this account, by the hash of its name, are wanted back.
    case recall(Fingerprint)
    /// Where the masters of the store are now.
    case storeTopology(StoreTopology)
    /// A new configuration.
    case adopt(Adoption)
}

package final class Worker {
    let number: Int
    /// Set by its thread when it will make no turn any more.
    let hasEnded = Atomic<Bool>(false)
    let shared: SharedState
    let metrics: WorkerMetrics
    let mailbox: Mailbox<WorkerMessage>
    let poller: Poller
    let downstreams: SlotTable<Downstream>
    let exchanges: SlotTable<Exchange>
    /// What new streams and exchanges are copies of.
    let blankStream = Mutable(Downstream.blankStream())
    let blankExchange = Mutable(Exchange())
    let upstreamConnections: SlotTable<UpstreamConnection>
    let keys: SlotTable<ActiveKey>
    /// What each key in `keys` was compiled from, by slot, for the next configuration.
    let keyRecords = Mutable<[Int: KeyRecord]>([:])
    let timers: TimerWheel
    let pool = BufferPool()
    let wire: TLSWire
    /// For all TLS contexts of this thread.
    let library: TLSLibrary
    /// Everything that a reload replaces.
    let snapshot: Mutable<WorkerSnapshot>
    let digester: Digester
    /// Slots of replaced keys that were used in this second.
    var replacedKeys: [Int32] = []
    let cache: KeyCache
    let upstreams: FixedArray<UpstreamState>
    let endpoints: FixedArray<EndpointState>
    let requestHead = Mutable(RequestHead())
    let responseHead = Mutable(ResponseHead())
    let http2: HTTP2Engine
    /// The head of an answer on its way into frames.
    let framedHead = Mutable(ResponseHead())
    /// The head of a request on its way into frames.
    let framedRequest = Mutable(RequestHead())
    /// Callers' connections at once, and how many of them may be shaking hands.
    let connectionsMax: Int
    let handshakesMax: Int
    /// Ciphertext as it came from a socket.
    let received = Mutable(Block.allocate(capacity: HardLimits.readBytes))
    /// Plaintext of the caller whose step this is.
    let plain = Mutable(Block.allocate(capacity: HardLimits.plaintextBytes))
    /// Plaintext from an upstream.
    let answer = Mutable(Block.allocate(capacity: HardLimits.plaintextBytes))
    /// Plaintext for callers, and whose it is.
    let toDownstream = Mutable(Block.allocate(capacity: HardLimits.deferredBytes + HardLimits.outputBytes))
    let downstreamParts = Mutable(OutputParts())
    /// Plaintext for upstreams, and whose it is.
    let toUpstream = Mutable(Block.allocate(capacity: HardLimits.deferredBytes + HardLimits.outputBytes))
    let upstreamParts = Mutable(OutputParts())
    /// The path in normal form, then the query.
    let target: Mutable<Block>
    let state: Mutable<WorkerState>
    let accessLog: AccessLogBuffer
    /// Records of sampled calls, on their way to the exporter.
    let traceLog: AccessLogBuffer
    let ways: StoreWays
    let store = Mutable(StoreState())
    let accounts: SlotTable<Account>
    let leases: SlotTable<Lease>
    /// As whom this worker holds leases, and where they are called back.
    let holderName: Block
    let recallChannel: Block
    let lookups = FixedArray(repeating: KeyLookup(), count: HardLimits.lookupsInFlight)
    let waiters = FixedArray(repeating: Waiter(), count: HardLimits.parkedCalls)
    let storePrefix: Block
    /// Room for one address as text.
    let addressScratch = Block.allocate(capacity: 64)

    /// Costs a reference: for what is not done for every call.
    var plan: ServingPlan { @inline(__always) _read { yield snapshot.value.plan } }
    var rows: PlanRows { @inline(__always) _read { yield snapshot.value.rows } }
    var server: TLSServerContext { @inline(__always) _read { yield snapshot.value.server } }
    var clients: [TLSClientContext?] { @inline(__always) _read { yield snapshot.value.clients } }
    var serverNames: [String] { @inline(__always) _read { yield snapshot.value.serverNames } }
    var unixPaths: [String] { @inline(__always) _read { yield snapshot.value.unixPaths } }
    var timeouts: Timeouts { @inline(__always) _read { yield snapshot.value.rows.timeouts } }
    var headLimits: HeadLimits { @inline(__always) _read { yield snapshot.value.rows.headLimits } }

    /// - Parameter sizes: how long the tables are that later configurations use too.
    /// - Throws: a sentence that says which certificate or system call is at fault.
    init(
        number: Int, plan: ServingPlan, sizes: PlanNumbers, shared: SharedState, listeners: Listeners
    ) throws {
        self.number = number
        self.shared = shared
        let configuration = plan.configuration
        metrics = WorkerMetrics(shape: WorkerMetrics.Shape(sizes))
        mailbox = try Mailbox()
        poller = try Poller()
        let connections = max(64, configuration.limits.connections / configuration.workers)
        connectionsMax = connections
        handshakesMax = max(16, configuration.limits.handshakes / configuration.workers)
        // As many streams as connections, so that no few connections can take the room of all.
        downstreams = SlotTable(capacity: connections * 2)
        exchanges = SlotTable(capacity: connections * 2)
        // Every call has a connection or a stream, and connections wait idle beside them.
        upstreamConnections = SlotTable(capacity: connections * 4)
        keys = SlotTable(capacity: configuration.keys.cacheEntries + connections + 1_024)
        // Every key may be of another account. Pages that are never touched cost nothing.
        let accountsMax = min(1 << 24, max(HardLimits.accounts, keys.capacity + HardLimits.tidiedAccounts))
        accounts = SlotTable(capacity: accountsMax)
        leases = SlotTable(capacity: accountsMax)
        let now = MonotonicClock.nowMicroseconds()
        timers = TimerWheel(timers: connections * 6, nowMicroseconds: now)
        wire = try TLSWire(outboundCapacity: 2 * HardLimits.outputBytes)
        library = try TLSLibrary()
        upstreams = FixedArray(repeating: UpstreamState(), count: sizes.upstreams.capacity)
        endpoints = FixedArray(repeating: EndpointState(), count: sizes.endpoints.capacity)
        let parts = TLSParts(wire: wire, library: library)
        snapshot = Mutable(
            WorkerSnapshot(
                plan: plan, rows: plan.rows, server: try parts.server(configuration.listen, shared.tickets),
                clients: Array(repeating: nil, count: sizes.upstreams.capacity),
                serverNames: Array(repeating: "", count: sizes.endpoints.capacity),
                unixPaths: Array(repeating: "", count: sizes.endpoints.capacity),
                addresses: Array(repeating: [], count: sizes.endpoints.capacity), listeners: listeners))
        digester = try Digester()
        cache = KeyCache(
            entries: configuration.keys.cacheEntries, unknownEntries: 65_536, seed: RandomSource.word())
        http2 = HTTP2Engine(limits: plan.rows.headLimits)
        target = Mutable(Block.allocate(capacity: HardLimits.targetBytes * 3 + 64))
        state = Mutable(WorkerState(seed: RandomSource.word()))
        accessLog = AccessLogBuffer(shared.accessLog)
        traceLog = AccessLogBuffer(shared.spans)
        storePrefix = .constant(configuration.store.prefix)
        holderName = .constant("\(shared.nodeName)/\(number)")
        recallChannel = .constant(TakeScript.recallChannel(prefix: configuration.store.prefix))
        ways = try StoreWays(configuration.store, poller, wire)
        try watch(listeners.https, .listener)
        try watch(listeners.plaintext, .plaintextListener)
        try poller.add(mailbox.wakeup.descriptor, token: Token(.mailbox).rawValue, .read)
        let first = Adoption(plan)
        first.clients = try parts.clients(plan, former: nil)
        adopt(first)
        http2.attach(self)
    }

    /// Runs until told to stop, or until drained.
    func run() {
        var events = EventList()
        updateClock()
        startStore()
        while !state.value.isStopping {
            turn(&events)
            if state.value.isDraining, !state.value.hasListeners, downstreams.count == 0 { break }
        }
        cutCalls()
        accessLog.flush()
        traceLog.flush()
        let end = MonotonicClock.nowMicroseconds() + rows.storeTimeoutMicroseconds
        while !state.value.isHurried, settlesLeases(until: end) { turn(&events) }
        stopStore()
    }

    private func turn(_ events: inout EventList) {
        poller.wait(timeoutMilliseconds: waitMilliseconds(), into: &events)
        updateClock()
        beginHandshakes()
        for index in 0..<events.count { dropUnasked(events[index]) }
        for index in 0..<events.count { dispatch(events[index]) }
        finishStep()
        runTimers()
        finishTurn()
        metrics.add(.turns)
    }

    /// Ends what the drain has not waited for: who looks for a call in the log finds it, and why it was cut.
    private func cutCalls() {
        // Streams end with their connections.
        for index in 0..<downstreams.highWater {
            guard let slot = downstreams.occupant(at: index), slot.value.kind != .stream else { continue }
            abandon(slot, .draining)
        }
        finishTurn()
    }

    private func waitMilliseconds() -> Int32 {
        if !state.value.resumeQueue.isEmpty || !state.value.answersQueue.isEmpty { return 0 }
        let tick = timers.millisecondsToNextTick(nowMicroseconds: state.value.nowMicroseconds)
        // Clock, gauges, store and access log want a turn from time to time even without traffic.
        return min(tick < 0 ? 200 : tick, storeWaitMilliseconds)
    }

    private func updateClock() {
        let now = MonotonicClock.nowMicroseconds()
        let wall = WallClock.nowMicroseconds()
        state.value.nowMicroseconds = now
        state.value.wallMicroseconds = wall
        if hasStore {
            cache.hear(untilMicroseconds: shared.changesHeardMicroseconds + KeyCache.unheardMicroseconds)
        }
        let second = wall / 1_000_000
        guard second != state.value.dateSecond else { return }
        state.value.dateSecond = second
        noteReplacedKeys()
        state.value.dateLine.clear()
        var writer = ByteWriter(state.value.dateLine)
        writer.append("Date: ")
        CalendarTime(unixSeconds: second).writeHTTPDate(into: &writer)
        writer.append("\r\n")
        state.value.dateLine.commit(writer)
    }

    private func dispatch(_ event: Event) {
        let token = Token(rawValue: event.token)
        switch token.kind {
        case .downstream:
            guard let slot = downstreams.lookup(token.reference), !slot.value.isDead else { return }
            handleDownstream(event, slot)
        case .upstream:
            guard let slot = upstreamConnections.lookup(token.reference), !slot.value.isDead else { return }
            handleUpstream(event, slot)
        case .listener:
            acceptConnections(
                on: snapshot.value.listeners.https, Int(token.reference.index), isPlaintextPort: false)
        case .plaintextListener:
            acceptConnections(
                on: snapshot.value.listeners.plaintext, Int(token.reference.index), isPlaintextPort: true)
        case .mailbox:
            finishStep()
            for message in mailbox.takeAll() { receive(message) }
        case .store: handleStore(event, Int(token.reference.index))
        }
        endStep()
    }

    /// Work that earlier steps left: callers that may go on, slots to free, the log, the store's commands.
    private func finishTurn() {
        flushStore()
        var index = 0
        while index < state.value.resumeQueue.count {
            let reference = state.value.resumeQueue[index]
            index += 1
            guard let slot = downstreams.lookup(reference), !slot.value.isDead else { continue }
            slot.value.isQueued = false
            resume(slot)
            endStep()
        }
        state.value.resumeQueue.removeAll(keepingCapacity: true)
        takeAnswers()
        serveQueues()
        finishStep()
        flushStore()
        freeTheDead()
        accessLog.endTurn(nowMicroseconds: state.value.nowMicroseconds)
        traceLog.endTurn(nowMicroseconds: state.value.nowMicroseconds)
        metrics.set(.connectionsActive, to: UInt64(exchanges.count))
        metrics.set(.connectionsIdle, to: UInt64(max(0, state.value.openConnections - exchanges.count)))
        metrics.set(.upstreamConnectionsOpen, to: UInt64(upstreamConnections.count))
    }

    private func freeTheDead() {
        for index in 0..<state.value.deadExchanges.count {
            if let slot = exchanges.lookup(state.value.deadExchanges[index]) { exchanges.free(slot) }
        }
        state.value.deadExchanges.removeAll(keepingCapacity: true)
        for index in 0..<state.value.deadDownstreams.count {
            guard let slot = downstreams.lookup(state.value.deadDownstreams[index]) else { continue }
            handshakeEnded(slot)
            if slot.value.kind == .stream {
                state.value.openStreams -= 1
            } else {
                state.value.openConnections -= 1
            }
            downstreams.free(slot)
        }
        state.value.deadDownstreams.removeAll(keepingCapacity: true)
        for index in 0..<state.value.deadUpstreams.count {
            let reference = state.value.deadUpstreams[index]
            if let slot = upstreamConnections.lookup(reference) { upstreamConnections.free(slot) }
        }
        state.value.deadUpstreams.removeAll(keepingCapacity: true)
    }

    /// Sends what the steps so far have produced.
    func finishStep() {
        while !upstreamParts.value.isEmpty || !downstreamParts.value.isEmpty || hasFrames {
            flushUpstream()
            flushDownstream()
            sendFrames()
        }
    }

    /// Leaves a step's output for the end of the turn, unless it is large or has been encrypted already: the
    /// wire belongs to one connection at a time.
    func endStep() {
        if wire.hasOutbound || toDownstream.value.count > HardLimits.deferredBytes
            || toUpstream.value.count > HardLimits.deferredBytes
            || downstreamParts.value.count >= HardLimits.deferredParts
            || upstreamParts.value.count >= HardLimits.deferredParts
        {
            finishStep()
        }
    }

    private func receive(_ message: WorkerMessage) {
        switch message {
        case .drain: beginDrain()
        case .closeListeners: closeListeners()
        case .pressure(let pressure): setPressure(pressure)
        case .releaseListeners: releaseListeners()
        case .stop(let isHurried):
            state.value.isStopping = true
            state.value.isHurried = isHurried
        case .health(let endpoint, let isHealthy): endpoints[endpoint].isHealthy = isHealthy
        case .resolved(let endpoint, let addresses, let retired):
            adopt(addresses, of: endpoint, retired: retired)
        case .invalidate(let digest): forget(digest)
        case .invalidateAll: forgetAll()
        case .recall(let account): recall(account)
        case .storeTopology(let topology): adopt(topology)
        case .adopt(let adoption): adopt(adoption)
        }
    }
}
