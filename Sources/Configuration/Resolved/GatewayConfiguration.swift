package import Keys
package import Limits

/// The whole configuration with every default filled in and every name resolved. Immutable: a request
/// finishes on the one it began with.
package struct GatewayConfiguration: Sendable {
    package var listen: ListenConfiguration
    package var admin: AdminConfiguration?
    package var store: StoreConfiguration
    package var keys: KeysConfiguration
    /// In the order of the file; records and routes refer to them by index.
    package var tiers: [TierConfiguration]
    package var upstreams: [UpstreamConfiguration]
    package var routes: [RouteConfiguration]
    package var limits: SizeLimits
    package var timeouts: Timeouts
    package var accessLog: AccessLogConfiguration
    /// Data-plane threads, 1 to 256; `auto` has been resolved to the number of processors.
    package var workers: Int
    /// Address ranges (`10.0.0.0/8`, `::1`) whose `X-Forwarded-For` and `X-Request-Id` are believed.
    package var trustedProxies: [String]
    /// Adds `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    package var legacyRateLimitHeaders: Bool
    package var log: LogConfiguration
    /// Failed authentications an address may make in a minute before it is told 429 instead of 401.
    package var failedAuthenticationsPerMinute: Int64
}

/// Where calls arrive.
package struct ListenConfiguration: Sendable {
    /// `host:port` or `[v6]:port`, checked to parse.
    package var httpsAddress: String
    package var certificates: [CertificateFiles]
    package var minimumTLSVersion: TLSMinimum
    /// Callers must present a certificate of this authority.
    package var clientCAPath: String?
    /// Answer 421 to a `Host` that the certificate does not cover.
    package var strictHost: Bool
    package var plaintext: PlaintextListen?
}

package struct CertificateFiles: Sendable, Hashable {
    package var chainPath: String
    package var privateKeyPath: String
}

package enum TLSMinimum: Sendable, Hashable { case v1_2, v1_3 }

/// The optional port that only ever refuses.
package struct PlaintextListen: Sendable {
    package var address: String
}

/// What happens to a key that came in clear.
package enum ExposedKeyPolicy: Sendable, Hashable { case report, revoke }

package struct AdminConfiguration: Sendable {
    package var address: String
    package var tokenFile: String?
}

/// Where keys and windows live.
package struct StoreConfiguration: Sendable {
    package var endpoint: StoreEndpoint
    package var user: String?
    package var password: StorePassword?
    package var database: Int
    package var caPath: String?
    /// Before every name in Redis; `gateway:`.
    package var prefix: String
    package var timeoutMilliseconds: Int
    package var onOutage: OutagePolicy
}

package enum StoreEndpoint: Sendable, Hashable {
    case memory
    case redis(host: String, port: Int, tls: Bool)
    case unixSocket(path: String)
    case sentinel(hosts: [String], name: String)
    case cluster(hosts: [String])
}

package enum OutagePolicy: Sendable, Hashable { case local, closed, open }

/// A password that no description, log or reflection shows.
package struct StorePassword: Sendable, CustomStringConvertible, CustomReflectable {
    private let text: String
    package init(_ text: String) { self.text = text }
    package func reveal() -> String { text }
    package var description: String { "[hidden]" }
    package var customMirror: Mirror { Mirror(self, children: []) }
}

package struct KeysConfiguration: Sendable {
    /// 1 to 8 prefixes.
    package var prefixes: [String]
    /// Contents of `pepper_file` as given, without the final line break: HMAC-SHA-256 instead of SHA-256.
    package var pepper: StorePassword?
    package var cacheEntries: Int
    package var ttlSeconds: Int
    package var unknownTTLSeconds: Int
    package var staleForSeconds: Int
    package var exposedKeys: ExposedKeyPolicy
    /// Keys declared in the file, looked at before the store.
    package var staticKeys: [KeyRecord]
}

package struct TierConfiguration: Sendable {
    package var name: String
    package var limits: LimitSpecification
}

package struct UpstreamConfiguration: Sendable {
    package var name: String
    package var endpoints: [EndpointConfiguration]
    package var balance: Balance
    package var health: HealthConfiguration?
    package var connectTimeoutMilliseconds: Int
    package var responseTimeoutMilliseconds: Int
    /// An idle pooled connection is closed after this.
    package var idleTimeoutMilliseconds: Int
    /// Attempts after the first, 0 to 5.
    package var retries: Int
    /// Trust for `https://` endpoints instead of the system's.
    package var caPath: String?
    /// Idle connections that a worker keeps to one endpoint.
    package var idleConnectionsPerWorker: Int
    /// Calls of one worker that are under way at once to one endpoint.
    package var connectionsPerWorker: Int
}

package enum Balance: Sendable, Hashable { case leastOutstanding, roundRobin, hash }

package struct EndpointConfiguration: Sendable, Hashable {
    package var transport: EndpointTransport
    /// As written, for logs and metric labels.
    package var text: String

    package init(
        transport: EndpointTransport, text: String
    ) {
        self.transport = transport
        self.text = text
    }
}

package enum EndpointTransport: Sendable, Hashable {
    case tcp(host: String, port: Int, tls: Bool)
    case unixSocket(path: String)
}

package struct HealthConfiguration: Sendable, Hashable {
    package var path: String
    package var intervalMilliseconds: Int
    package var timeoutMilliseconds: Int
    /// Successes in a row that bring an endpoint back.
    package var healthyThreshold: Int
    /// Failures in a row that take it out.
    package var unhealthyThreshold: Int

    package init(
        path: String, intervalMilliseconds: Int, timeoutMilliseconds: Int, healthyThreshold: Int,
        unhealthyThreshold: Int
    ) {
        self.path = path
        self.intervalMilliseconds = intervalMilliseconds
        self.timeoutMilliseconds = timeoutMilliseconds
        self.healthyThreshold = healthyThreshold
        self.unhealthyThreshold = unhealthyThreshold
    }
}

package struct RouteConfiguration: Sendable {
    /// For metrics and logs: `name:` or the path as written.
    package var name: String
    /// As written: `/api/**`, `/a/*/b`, `/a/{id}`.
    package var path: String
    /// Upper-case tokens; empty means all.
    package var methods: [String]
    package var isPublic: Bool
    package var scopes: [Scope]
    /// Index into `GatewayConfiguration.upstreams`.
    package var upstream: Int
    /// Permits a call costs, 1 to 1,000.
    package var cost: Int64
    package var forwardAuthorization: Bool
    /// `Host` as forwarded; absent keeps the caller's.
    package var host: String?
    package var stripPrefix: String?
    package var addPrefix: String?
    /// Overrides `limits.body`, in bytes.
    package var bodyBytes: Int64?
    /// Overrides the upstream's, in milliseconds.
    package var responseTimeoutMilliseconds: Int?

    package init(
        name: String, path: String, methods: [String], isPublic: Bool, scopes: [Scope], upstream: Int,
        cost: Int64, forwardAuthorization: Bool, host: String?, stripPrefix: String?, addPrefix: String?,
        bodyBytes: Int64?, responseTimeoutMilliseconds: Int?
    ) {
        self.name = name
        self.path = path
        self.methods = methods
        self.isPublic = isPublic
        self.scopes = scopes
        self.upstream = upstream
        self.cost = cost
        self.forwardAuthorization = forwardAuthorization
        self.host = host
        self.stripPrefix = stripPrefix
        self.addPrefix = addPrefix
        self.bodyBytes = bodyBytes
        self.responseTimeoutMilliseconds = responseTimeoutMilliseconds
    }
}

/// `limits:`; sizes in bytes.
package struct SizeLimits: Sendable {
    package var headBytes: Int
    package var fields: Int
    package var targetBytes: Int
    package var bodyBytes: Int64
    /// Caller connections of the whole process.
    package var connections: Int
}

/// `timeouts:`; milliseconds, and bytes a second for `bodyRate`.
package struct Timeouts: Sendable {
    package var handshake: Int
    package var head: Int
    package var body: Int
    package var bodyRate: Int
    package var idle: Int
    package var drainDelay: Int
    package var drain: Int
}

package struct AccessLogConfiguration: Sendable {
    package var target: LogTarget
}

package enum LogTarget: Sendable, Hashable {
    case off, standardOutput, standardError
    case file(path: String)
}

/// The program's own log, on standard error.
package struct LogConfiguration: Sendable {
    package var level: String
    package var isJSON: Bool
}
