package import Configuration
import HTTPWire
import Keys
import Limits
import Reactor

// The configuration as workers read it: numbers instead of names, header lines prebuilt, everything in plain
// rows, so that a request touches no string, no dictionary and no reference count.

/// One route as compiled.
struct RoutePlan {
    /// Its name's number, under which it is counted and logged.
    var series: Int32
    var isPublic: Bool
    /// Number of the scope set it needs, see `ScopeGrants.contains`.
    var scopes: Int
    var upstream: Int
    var cost: Int64
    var forwardsAuthorization: Bool
    /// `Host` as forwarded; empty keeps the caller's.
    var host: Block
    /// `Host` of calls that name none (HTTP/1.0): the upstream's first endpoint.
    var defaultHost: Block
    /// Path bytes that are cut off in front, without a final slash.
    var stripPrefix: Block
    /// Path bytes that are put in front, without a final slash.
    var addPrefix: Block
    var bodyBytes: Int64
    var responseTimeoutMicroseconds: Int64
    /// Longest silence once an answer has begun; 0 keeps the response timeout except for streams.
    var idleTimeoutMicroseconds: Int64
    /// The whole `WWW-Authenticate` line of a 403 here.
    var insufficientScope: Block

    mutating func deallocate() {
        host.deallocate()
        defaultHost.deallocate()
        stripPrefix.deallocate()
        addPrefix.deallocate()
        insufficientScope.deallocate()
    }
}

/// What is sent about a plan's windows, the same on every answer.
struct PolicyText {
    /// `RateLimit-Policy: …` with its line end.
    var policyLine = Block.none
    /// Where the value stands in it, behind 18 bytes of name.
    var valueRange: Range<Int> { 18..<policyLine.count - 2 }
    /// `"name";r=` for each window.
    var names = InlineArray<4, Block>(repeating: .none)
    /// `X-RateLimit-Limit: …` with its line end; empty unless the legacy fields are on.
    var legacyLine = Block.none

    init() {}

    init(tier: String, plan: LimitPlan, legacy: Bool) {
        var members: [String] = []
        for index in 0..<plan.count {
            let window = plan.windows[index]
            let name = index == 0 ? tier : "\(tier)-\(window.lengthSeconds)s"
            members.append("\"\(name)\";q=\(window.limit);w=\(window.lengthSeconds)")
            names[index] = .constant("\"\(name)\";r=")
        }
        policyLine = .constant("RateLimit-Policy: \(members.joined(separator: ", "))\r\n")
        if legacy { legacyLine = .constant("X-RateLimit-Limit: \(plan.windows[0].limit)\r\n") }
    }

    mutating func deallocate() {
        policyLine.deallocate()
        legacyLine.deallocate()
        for index in 0..<4 { names[index].deallocate() }
    }
}

/// What every call reads of a plan: plain values and handles on the plan's rows, so that reading one takes no
/// reference to the plan. Good for as long as the plan is.
struct PlanRows {
    var generation: UInt32 = 0
    var router: Router
    var routes: FixedArray<RoutePlan>
    var timeouts: Timeouts
    var headLimits: HeadLimits
    /// Millionths of the good calls that have a line in the access log; -1 without one.
    var logShare: Int
    /// Whether those lines show what callers say of themselves.
    var logsAgents: Bool
    /// Millionths of the calls without a parent that are traced; -1 without traces.
    var traceShare: Int
    var strictHost: Bool
    var hasTrustedProxies: Bool
    var workers: Int
    var storeTimeoutMicroseconds: Int64
    var onOutage: OutagePolicy
}

/// The configuration of one generation, compiled. Immutable after init, shared by all threads. Numbers of
/// routes, scopes and router entries are its own; those of series, tiers, upstreams and endpoints outlive it.
package final class ServingPlan: @unchecked Sendable {
    // `@unchecked`: the rows are plain memory written in init only.
    package let configuration: GatewayConfiguration
    /// Counts the configurations of this process, from 1.
    package let generation: UInt32
    let numbers: PlanNumbers.Assigned
    static let wholeLogShare = 1_000_000
    let router: Router
    let routes: FixedArray<RoutePlan>
    let scopeRequirements: ScopeRequirements
    let tierNumbers: [String: Int]
    let tierLimits: [String: LimitSpecification]
    let keyFormat: KeyFormat
    let staticKeys: [Digest256: KeyRecord]
    let trustedProxies: [AddressRange]

    /// - Parameter configuration: as the loader has checked it.
    init(_ configuration: GatewayConfiguration, _ numbers: PlanNumbers.Assigned, generation: UInt32) {
        self.configuration = configuration
        self.numbers = numbers
        self.generation = generation
        router = Router(configuration.routes)
        var requirements = ScopeRequirements()
        var plans: [RoutePlan] = []
        for (number, route) in configuration.routes.enumerated() {
            let upstream = configuration.upstreams[route.upstream]
            let set = ScopeSet(route.scopes) ?? .none
            guard let scopes = requirements.number(of: set) else {
                preconditionFailure("the loader bounds the number of scope sets")
            }
            let milliseconds = route.responseTimeoutMilliseconds ?? upstream.responseTimeoutMilliseconds
            plans.append(
                RoutePlan(
                    series: Int32(numbers.routes.numbers[number]), isPublic: route.isPublic, scopes: scopes,
                    upstream: numbers.upstreams.numbers[route.upstream], cost: route.cost,
                    forwardsAuthorization: route.forwardAuthorization,
                    host: .constant(route.host ?? ""),
                    defaultHost: .constant(Self.authority(upstream.endpoints.first?.transport)),
                    stripPrefix: .constant(Self.prefix(route.stripPrefix)),
                    addPrefix: .constant(Self.prefix(route.addPrefix)),
                    bodyBytes: route.bodyBytes ?? configuration.limits.bodyBytes,
                    responseTimeoutMicroseconds: Int64(milliseconds) * 1_000,
                    idleTimeoutMicroseconds: Int64(route.idleTimeoutMilliseconds ?? 0) * 1_000,
                    insufficientScope: .constant(
                        "WWW-Authenticate: Bearer realm=\"api\", error=\"insufficient_scope\", "
                            + "scope=\"\(set.text)\"\r\n")))
        }
        routes = FixedArray(plans)
        scopeRequirements = requirements
        var tiers: [String: Int] = [:]
        for (index, tier) in configuration.tiers.enumerated() {
            tiers[tier.name] = numbers.tiers.numbers[index]
        }
        tierNumbers = tiers
        tierLimits = Dictionary(
            configuration.tiers.map { ($0.name, $0.limits) }, uniquingKeysWith: { first, _ in first })
        guard let format = KeyFormat(prefixes: configuration.keys.prefixes) else {
            preconditionFailure("the loader checks key prefixes")
        }
        keyFormat = format
        var records: [Digest256: KeyRecord] = [:]
        for record in configuration.keys.staticKeys { records[record.digest] = record }
        staticKeys = records
        trustedProxies = configuration.trustedProxies.compactMap(AddressRange.parse)
    }

    /// For the workers.
    var rows: PlanRows {
        let limits = configuration.limits
        return PlanRows(
            generation: generation, router: router, routes: routes, timeouts: configuration.timeouts,
            headLimits: HeadLimits(
                headBytes: limits.headBytes, fields: limits.fields, targetBytes: limits.targetBytes),
            logShare: configuration.accessLog.target == .off ? -1 : configuration.accessLog.sampleMillionths,
            logsAgents: configuration.accessLog.format == .combined,
            traceShare: configuration.traces?.sampleMillionths ?? -1,
            strictHost: configuration.listen.strictHost, hasTrustedProxies: !trustedProxies.isEmpty,
            workers: configuration.workers,
            storeTimeoutMicroseconds: Int64(configuration.store.timeoutMilliseconds) * 1_000,
            onOutage: configuration.store.onOutage)
    }

    deinit {
        for index in 0..<routes.count { routes[index].deallocate() }
        routes.deallocate()
        router.deallocate()
    }

    /// Each upstream with its number and the numbers of its endpoints.
    package var upstreamNumbers: [(configuration: UpstreamConfiguration, number: Int, endpoints: [Int])] {
        var first = 0
        return configuration.upstreams.enumerated().map { index, upstream in
            defer { first += upstream.endpoints.count }
            let endpoints = numbers.endpoints.numbers[first..<first + upstream.endpoints.count]
            return (upstream, numbers.upstreams.numbers[index], Array(endpoints))
        }
    }

    /// Each route's name once, with its number, in the order of the file.
    package var routeSeries: [(name: String, number: Int)] {
        var seen: Set<Int> = []
        return zip(configuration.routes, numbers.routes.numbers).compactMap { route, number in
            seen.insert(number).inserted ? (route.name, number) : nil
        }
    }

    /// Each tier with its number, in the order of the file.
    package var tierSeries: [(name: String, number: Int)] {
        zip(configuration.tiers, numbers.tiers.numbers).map { ($0.name, $1) }
    }

    /// `host:port`, with an IPv6 address in brackets.
    private static func authority(_ transport: EndpointTransport?) -> String {
        guard case .tcp(let host, let port, _) = transport else { return "localhost" }
        return host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }

    private static func prefix(_ text: String?) -> String {
        guard var text else { return "" }
        while text.hasSuffix("/") { text.removeLast() }
        return text
    }
}
