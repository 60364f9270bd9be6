package import Configuration
import Keys
import Limits
import Reactor

// The configuration as workers read it: numbers instead of names, header lines prebuilt, everything in plain
// rows, so that a request touches no string, no dictionary and no reference count.

/// One route as compiled.
struct RoutePlan {
    var number: Int
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
}

/// What is sent about a plan's windows, the same on every answer.
struct PolicyText {
    /// `RateLimit-Policy: …` with its line end.
    var policyLine = Block.none
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

/// The configuration of one generation, compiled. Immutable after init, shared by all threads.
package final class ServingPlan: @unchecked Sendable {
    // `@unchecked`: the rows are plain memory written in init only.
    package let configuration: GatewayConfiguration
    let router: Router
    let routes: FixedArray<RoutePlan>
    let scopeRequirements: ScopeRequirements
    let tierNumbers: [String: Int]
    let keyFormat: KeyFormat
    let staticKeys: [Digest256: KeyRecord]
    let trustedProxies: [AddressRange]
    package let shape: WorkerMetrics.Shape

    /// - Parameter configuration: as the loader has checked it.
    package init(_ configuration: GatewayConfiguration) {
        self.configuration = configuration
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
                    number: number, isPublic: route.isPublic, scopes: scopes, upstream: route.upstream,
                    cost: route.cost, forwardsAuthorization: route.forwardAuthorization,
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
        var numbers: [String: Int] = [:]
        for (number, tier) in configuration.tiers.enumerated() { numbers[tier.name] = number }
        tierNumbers = numbers
        guard let format = KeyFormat(prefixes: configuration.keys.prefixes) else {
            preconditionFailure("the loader checks key prefixes")
        }
        keyFormat = format
        var records: [Digest256: KeyRecord] = [:]
        for record in configuration.keys.staticKeys { records[record.digest] = record }
        staticKeys = records
        trustedProxies = configuration.trustedProxies.compactMap(AddressRange.parse)
        shape = WorkerMetrics.Shape(
            routes: configuration.routes.count, tiers: configuration.tiers.count,
            upstreams: configuration.upstreams.count)
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
