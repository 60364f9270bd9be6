import HTTPWire

/// Everything one worker counts, laid out in two banks.
///
/// `series` is dense: a cell for every (route, method, status, tier). Dense costs address space, which is
/// free, and makes counting a request one multiplication and one add.
package final class WorkerMetrics: Sendable {
    /// How wide each dimension of the request counters is: as many as there are numbers, see `Numbering`.
    package struct Shape: Sendable, Equatable {
        /// One more row counts requests that matched no route.
        package var routes: Int
        /// One more column counts requests without a key.
        package var tiers: Int
        package var upstreams: Int

        package init(routes: Int, tiers: Int, upstreams: Int) {
            self.routes = routes
            self.tiers = tiers
            self.upstreams = upstreams
        }

        init(_ numbers: PlanNumbers) {
            self.init(
                routes: numbers.routes.capacity, tiers: numbers.tiers.capacity,
                upstreams: numbers.upstreams.capacity)
        }
    }

    /// Results of authentication, the label values of `gateway_auth_total`.
    package enum Authentication: Int, CaseIterable, Sendable {
        case ok, missing, malformed, unknown, expired, disabled, revoked, exposed, unavailable
    }

    /// Decisions of the limiter, the label values of `gateway_ratelimit_total`.
    package enum LimitDecision: Int, CaseIterable, Sendable {
        case allowed, limited, allowed_degraded, limited_degraded
    }

    /// Results of a look-up in the key cache.
    package enum CacheResult: Int, CaseIterable, Sendable {
        case hit, miss, unknown, stale, coalesced
    }

    /// Single counters and gauges.
    package enum Scalar: Int, CaseIterable, Sendable {
        case connectionsActive, connectionsIdle, connectionsAccepted, connectionsRefused
        case handshakesTLS12Full, handshakesTLS12Resumed, handshakesTLS13Full, handshakesTLS13Resumed
        case handshakesFailed
        case plaintextWithoutCredential, plaintextWithCredential
        case upstreamConnects, upstreamConnectFailures, upstreamRetries, upstreamQueueOverflows
        case bytesFromDownstream, bytesToDownstream
        case accessLogDropped, recordProblems, storeDegraded, upstreamConnectionsOpen
        case storeUp, generation, turns
        case spansDropped, handshakesEvicted, idleClosedForMemory, upstreamQueued
        case streamsOpened, streamsRefused, streamsMalformed, floodsEnded
    }

    static let methods = 10
    static let statusSlots = 64

    package let shape: Shape
    let scalars = CounterBank(count: Scalar.allCases.count)
    let authentication = CounterBank(count: Authentication.allCases.count)
    let cache = CounterBank(count: CacheResult.allCases.count)
    let reasons = CounterBank(count: Reason.allCases.count)
    let limits: CounterBank
    let nearLimit: CounterBank
    let series: CounterBank
    /// Answers of each route by method: what a scrape asks first, so that it passes over most of `series`.
    let methodTotals: CounterBank
    let routeDurations: CounterBank
    let upstreamDurations: CounterBank
    let storeDurations = CounterBank(count: 2 * LatencyBuckets.cells)

    package init(shape: Shape) {
        self.shape = shape
        limits = CounterBank(count: (shape.tiers + 1) * LimitDecision.allCases.count)
        nearLimit = CounterBank(count: shape.tiers + 1)
        series = CounterBank(
            count: (shape.routes + 1) * Self.methods * Self.statusSlots * (shape.tiers + 1))
        methodTotals = CounterBank(count: (shape.routes + 1) * Self.methods)
        routeDurations = CounterBank(count: (shape.routes + 1) * LatencyBuckets.cells)
        upstreamDurations = CounterBank(count: max(1, shape.upstreams) * LatencyBuckets.cells)
    }

    @inline(__always)
    func add(_ scalar: Scalar, _ amount: UInt64 = 1) { scalars.add(scalar.rawValue, amount) }

    @inline(__always)
    func set(_ scalar: Scalar, to value: UInt64) { scalars.set(scalar.rawValue, to: value) }

    /// Counts one finished request. `route` and `tier` are -1 where there is none.
    @inline(__always)
    func countRequest(route: Int, method: Int, status: Int, tier: Int, durationMicroseconds: Int64) {
        let row = route + 1
        let cell =
            ((row * Self.methods + method) * Self.statusSlots + StatusSlot.index(of: status))
            * (shape.tiers + 1) + tier + 1
        series.add(cell)
        methodTotals.add(row * Self.methods + method)
        routeDurations.observe(
            histogramAt: row * LatencyBuckets.cells, microseconds: durationMicroseconds)
    }

    @inline(__always)
    func countLimit(_ decision: LimitDecision, tier: Int) {
        limits.add((tier + 1) * LimitDecision.allCases.count + decision.rawValue)
    }

    // MARK: Numbers that change hands

    /// Forgets what a route's number counted for another name.
    func clear(route: Int) {
        let width = Self.methods * Self.statusSlots * (shape.tiers + 1)
        series.clear((route + 1) * width, count: width)
        methodTotals.clear((route + 1) * Self.methods, count: Self.methods)
        routeDurations.clear((route + 1) * LatencyBuckets.cells, count: LatencyBuckets.cells)
    }

    func clear(tier: Int) {
        let decisions = LimitDecision.allCases.count
        limits.clear((tier + 1) * decisions, count: decisions)
        nearLimit.clear(tier + 1, count: 1)
        let width = shape.tiers + 1
        for row in 0..<series.count / width { series.clear(row * width + tier + 1, count: 1) }
    }

    func clear(upstream: Int) {
        upstreamDurations.clear(upstream * LatencyBuckets.cells, count: LatencyBuckets.cells)
    }

    // MARK: Read by the control thread

    package func value(_ scalar: Scalar) -> UInt64 { scalars.read(scalar.rawValue) }
    package func value(_ result: Authentication) -> UInt64 { authentication.read(result.rawValue) }
    package func value(_ result: CacheResult) -> UInt64 { cache.read(result.rawValue) }

    private static let failures = Reason.allCases.filter { $0 != .none }
    /// The reasons for which calls are refused or fail: those of the access log.
    package static let reasons = failures.map { "\($0.text)" }

    /// - Parameter number: a reason's place in `reasons`.
    package func reasonCount(_ number: Int) -> UInt64 {
        reasons.read(Int(Self.failures[number].rawValue))
    }

    /// - Parameter tier: index of the tier, -1 for requests without one.
    package func value(_ decision: LimitDecision, tier: Int) -> UInt64 {
        limits.read((tier + 1) * LimitDecision.allCases.count + decision.rawValue)
    }

    /// Adds all answered requests to five counts, by the status' first digit.
    package func addRequests(byClass counts: inout [UInt64]) {
        let tiers = shape.tiers + 1
        for row in 0..<(shape.routes + 1) * Self.methods where methodTotals.read(row) > 0 {
            for slot in 1..<Self.statusSlots {
                let first = (row * Self.statusSlots + slot) * tiers
                for cell in first..<first + tiers {
                    counts[StatusSlot.firstDigits[slot] - 1] &+= series.read(cell)
                }
            }
        }
    }

    package func nearLimitCount(tier: Int) -> UInt64 { nearLimit.read(tier + 1) }

    /// Requests counted for one combination; `route` and `tier` -1 where there was none.
    package func requests(route: Int, method: Int, statusSlot: Int, tier: Int) -> UInt64 {
        series.read(
            (((route + 1) * Self.methods + method) * Self.statusSlots + statusSlot)
                * (shape.tiers + 1) + tier + 1)
    }

    /// Requests of one route and method, whatever their status and tier.
    package func requests(route: Int, method: Int) -> UInt64 {
        methodTotals.read((route + 1) * Self.methods + method)
    }

    /// The cells of a route's histogram: buckets (not cumulative), then the sum in microseconds.
    package func routeDuration(route: Int, cell: Int) -> UInt64 {
        routeDurations.read((route + 1) * LatencyBuckets.cells + cell)
    }

    package func upstreamDuration(upstream: Int, cell: Int) -> UInt64 {
        upstreamDurations.read(upstream * LatencyBuckets.cells + cell)
    }

    /// - Parameter command: 0 for key look-ups, 1 for debits.
    package func storeDuration(command: Int, cell: Int) -> UInt64 {
        storeDurations.read(command * LatencyBuckets.cells + cell)
    }
}

/// Statuses that are counted one by one; any other falls in the slot of its class.
package enum StatusSlot {
    /// The status that each slot stands for; 0 is unused, the last five are `1xx` to `5xx`.
    package static let labels: [String] = {
        var labels = [String](repeating: "", count: WorkerMetrics.statusSlots)
        for status in 100...599 {
            let slot = index(of: status)
            labels[slot] = slot >= 59 ? "\(status / 100)xx" : "\(status)"
        }
        return labels
    }()

    /// The first digit of each slot's status; 1 for the unused slot.
    static let firstDigits = labels.map { $0.first.flatMap(\.wholeNumberValue) ?? 1 }

    @inline(__always)
    static func index(of status: Int) -> Int {
        switch status {
        case 200...208: return status - 199  // 1...9
        case 300...308: return status - 290  // 10...18
        case 400...431: return status - 381  // 19...50
        case 451: return 51
        case 500...506: return status - 448  // 52...58
        default: return 58 + min(5, max(1, status / 100))  // 59...63
        }
    }
}
