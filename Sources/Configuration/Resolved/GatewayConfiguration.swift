package import Keys
package import Limits

/// The whole configuration with every default filled in and every name resolved. Immutable: a request
/// finishes on the one it began with.
package struct GatewayConfiguration: Sendable {
    /// `listen:`.
    package var listen: ListenConfiguration
    /// `admin:`; without it there is no admin listener.
    package var admin: AdminConfiguration?
    /// `store:`.
    package var store: StoreConfiguration
    /// `keys:`.
    package var keys: KeysConfiguration
    /// In the order of the file; records and routes refer to them by index.
    package var tiers: [TierConfiguration]
    /// In the order of the file; routes refer to them by index.
    package var upstreams: [UpstreamConfiguration]
    /// In the order of the file, which does not matter to matching.
    package var routes: [RouteConfiguration]
    /// `limits:`.
    package var limits: SizeLimits
    /// `timeouts:`.
    package var timeouts: Timeouts
    /// `access_log:`.
    package var accessLog: AccessLogConfiguration
    /// Data-plane threads, 1 to 256; `auto` has been resolved to the number of processors.
    package var workers: Int
    /// Address ranges (`10.0.0.0/8`, `::1`) whose `X-Forwarded-For` and `X-Request-Id` are believed.
    package var trustedProxies: [String]
    /// Adds `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    package var legacyRateLimitHeaders: Bool
    /// `log:`.
    package var log: LogConfiguration
    /// `traces:`; absent, none are exported.
    package var traces: TraceConfiguration?
    /// Failed authentications an address may make in a minute before it is told 429 instead of 401.
    package var failedAuthenticationsPerMinute: Int64
}

/// Where calls arrive.
package struct ListenConfiguration: Sendable {
    /// `host:port` or `[v6]:port`, checked to parse.
    package var httpsAddress: String
    /// At least one; the first answers to names that none covers.
    package var certificates: [CertificateFiles]
    /// The oldest version that is spoken.
    package var minimumTLSVersion: TLSMinimum
    /// Callers must present a certificate of this authority.
    package var clientCAPath: String?
    /// Names that callers use, in lower case; a certificate has to cover each.
    package var hosts: [String] = []
    /// Answer 421 to a `Host` that the certificate does not cover.
    package var strictHost: Bool
    /// The port that refuses plain HTTP; absent without one.
    package var plaintext: PlaintextListen?
}

/// One certificate; both files could be read when the configuration was.
package struct CertificateFiles: Sendable, Hashable {
    /// PEM, leaf first.
    package var chainPath: String
    /// PEM, without a passphrase.
    package var privateKeyPath: String
}

/// The oldest version of TLS.
package enum TLSMinimum: Sendable, Hashable { case v1_2, v1_3 }

/// The optional port that only ever refuses.
package struct PlaintextListen: Sendable {
    /// `host:port` or `[v6]:port`, checked to parse.
    package var address: String
}

/// What happens to a key that came in clear.
package enum ExposedKeyPolicy: Sendable, Hashable { case report, revoke }

/// The listener for operators.
package struct AdminConfiguration: Sendable {
    /// `host:port` or `[v6]:port`, checked to parse.
    package var address: String
    /// A readable file with the bearer token.
    package var tokenFile: String?
    /// What stands in `token_file`: may read and change everything. Without it nobody may do either.
    package var token: StorePassword?
    /// What stands in `read_token_file`: may read only.
    package var readToken: StorePassword?
    /// Names in `Host` that are this listener's, in lower case, besides `localhost` and addresses.
    package var hosts: [String]
    /// Where callers find the gateway, like `https://api.example.com`; for calls to paste.
    package var publicURL: String?
}

/// Where keys and windows live.
package struct StoreConfiguration: Sendable {
    /// Where it is.
    package var endpoint: StoreEndpoint
    /// For `AUTH`; absent is the default user.
    package var user: String?
    /// For `AUTH`; absent sends none.
    package var password: StorePassword?
    /// For `SELECT`, 0 to 1,000.
    package var database: Int
    /// Trust for `rediss://` instead of the system's.
    package var caPath: String?
    /// Before every name in Redis; `gateway:`.
    package var prefix: String
    /// A command that takes longer counts as an outage; 10 ms to 10 s.
    package var timeoutMilliseconds: Int
    /// What happens to limits while the store is away.
    package var onOutage: OutagePolicy
}

/// The kinds of store. Ports are 1 to 65,535; the lists hold `host:port`.
package enum StoreEndpoint: Sendable, Hashable {
    case memory
    case redis(host: String, port: Int, tls: Bool)
    case unixSocket(path: String)
    case sentinel(hosts: [String], name: String, tls: Bool)
    case cluster(hosts: [String], tls: Bool)
}

/// Limits without the store: this node's own windows, 503, or none.
package enum OutagePolicy: Sendable, Hashable { case local, closed, open }

/// A password that no description, log or reflection shows.
package struct StorePassword: Sendable, CustomStringConvertible, CustomReflectable {
    private let text: String
    /// Keeps the secret.
    package init(_ text: String) { self.text = text }
    /// The secret itself, for the one place that sends or hashes it.
    package func reveal() -> String { text }
    /// Never the secret.
    package var description: String { "[hidden]" }
    /// Empty: `dump` and the descriptions of owners go this way.
    package var customMirror: Mirror { Mirror(self, children: []) }
}

/// How keys look and how long they are remembered.
package struct KeysConfiguration: Sendable {
    /// 1 to 8 prefixes.
    package var prefixes: [String]
    /// Contents of `pepper_file` as given, without the final line break: HMAC-SHA-256 instead of SHA-256.
    package var pepper: StorePassword?
    /// Known keys that one worker remembers, 1 to 10,000,000.
    package var cacheEntries: Int
    /// A known key is asked for again after this; 1 s to 1 day.
    package var ttlSeconds: Int
    /// An unknown key is asked for again after this; 1 s to 1 hour.
    package var unknownTTLSeconds: Int
    /// Known keys serve without the store for this; 0 to 7 days.
    package var staleForSeconds: Int
    /// What happens to keys that come in clear.
    package var exposedKeys: ExposedKeyPolicy
    /// Keys declared in the file, looked at before the store.
    package var staticKeys: [KeyRecord]
}

/// The limits that records refer to by name.
package struct TierConfiguration: Sendable {
    /// Letters, digits, - and _, up to 64.
    package var name: String
    /// All of its windows hold together.
    package var limits: LimitSpecification
}

/// A service and how to talk to it.
package struct UpstreamConfiguration: Sendable {
    /// Letters, digits, - and _, up to 64.
    package var name: String
    /// At least one, all different.
    package var endpoints: [EndpointConfiguration]
    /// How calls are spread over the endpoints.
    package var balance: Balance
    /// Active checks; absent without any.
    package var health: HealthConfiguration?
    /// Until TCP and TLS are up; 1 ms to 1 minute.
    package var connectTimeoutMilliseconds: Int
    /// Until the head of the answer, and between arrivals of its body; 1 ms to 1 day.
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
    /// Calls of one worker that may wait for a connection, and how long.
    package var queuePerWorker = 128
    package var queueTimeoutMilliseconds = 1_000
    /// HTTP/2: agreed on by ALPN over TLS, known beforehand in clear.
    package var usesHTTP2 = false
}

/// The less busy of two, one after the other, or by account.
package enum Balance: Sendable, Hashable { case leastOutstanding, roundRobin, hash }

/// One address of an upstream.
package struct EndpointConfiguration: Sendable, Hashable {
    /// How it is reached.
    package var transport: EndpointTransport
    /// As written, for logs and metric labels.
    package var text: String

    /// Not checked: the loader has done that.
    package init(
        transport: EndpointTransport, text: String
    ) {
        self.transport = transport
        self.text = text
    }
}

/// How an endpoint is reached. Hosts stand without brackets; ports are 1 to 65,535.
package enum EndpointTransport: Sendable, Hashable {
    case tcp(host: String, port: Int, tls: Bool)
    case unixSocket(path: String)
}

/// Active checks of one upstream.
package struct HealthConfiguration: Sendable, Hashable {
    /// What is asked for; 2xx and 3xx are well.
    package var path: String
    /// Between two checks; 100 ms to 1 hour.
    package var intervalMilliseconds: Int
    /// For one check; 10 ms to 1 minute.
    package var timeoutMilliseconds: Int
    /// Successes in a row that bring an endpoint back.
    package var healthyThreshold: Int
    /// Failures in a row that take it out.
    package var unhealthyThreshold: Int

    /// Not checked: the loader has done that.
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

/// What one path needs and where it goes.
package struct RouteConfiguration: Sendable {
    /// For metrics and logs: `name:` or the path as written.
    package var name: String
    /// As written: `/api/**`, `/a/*/b`, `/a/{id}`.
    package var path: String
    /// Upper-case tokens; empty means all.
    package var methods: [String]
    /// Needs no key.
    package var isPublic: Bool
    /// All of them are needed; at most 64, without repetitions.
    package var scopes: [Scope]
    /// Index into `GatewayConfiguration.upstreams`.
    package var upstream: Int
    /// Permits a call costs, 1 to 1,000.
    package var cost: Int64
    /// Leaves the caller's `Authorization` in the request.
    package var forwardAuthorization: Bool
    /// `Host` as forwarded; absent keeps the caller's.
    package var host: String?
    /// Whole segments that are cut off the front of the path.
    package var stripPrefix: String?
    /// Whole segments that are put in front, after the cut.
    package var addPrefix: String?
    /// Overrides `limits.body`, in bytes.
    package var bodyBytes: Int64?
    /// Overrides the upstream's, in milliseconds.
    package var responseTimeoutMilliseconds: Int?
    /// Longest silence of an answer that has begun, and of a tunnel.
    package var idleTimeoutMilliseconds: Int?

    /// Not checked: the loader has done that.
    package init(
        name: String, path: String, methods: [String], isPublic: Bool, scopes: [Scope], upstream: Int,
        cost: Int64, forwardAuthorization: Bool, host: String?, stripPrefix: String?, addPrefix: String?,
        bodyBytes: Int64?, responseTimeoutMilliseconds: Int?, idleTimeoutMilliseconds: Int? = nil
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
        self.idleTimeoutMilliseconds = idleTimeoutMilliseconds
    }
}

/// `limits:`; sizes in bytes.
package struct SizeLimits: Sendable {
    /// A request's whole head, 1 KiB to 48 KiB.
    package var headBytes: Int
    /// Field lines of a request, 8 to 256.
    package var fields: Int
    /// The request target, 256 B to 32 KiB and no more than the head.
    package var targetBytes: Int
    /// The body of a request.
    package var bodyBytes: Int64
    /// Caller connections of the whole process.
    package var connections: Int
    /// Handshakes under way in the whole process; beyond it the oldest makes room.
    package var handshakes = 4_096
    /// Resident memory from which on no connection is accepted; absent without a watermark.
    package var memoryBytes: Int?
}

/// `timeouts:`; milliseconds, and bytes a second for `bodyRate`.
package struct Timeouts: Sendable {
    /// Until TLS is up.
    package var handshake: Int
    /// For the whole head of a request.
    package var head: Int
    /// Between two arrivals of a body.
    package var body: Int
    /// What a body must reach on average after that.
    package var bodyRate: Int
    /// Between two requests of a connection.
    package var idle: Int
    /// Listeners stay open for this after the signal to end.
    package var drainDelay: Int
    /// Calls that are under way may take this long after that.
    package var drain: Int
}

/// Where a line for each call goes.
package struct AccessLogConfiguration: Sendable {
    /// The place itself.
    package var target: LogTarget
    /// How a line looks.
    package var format = LogFormat.json
    /// Millionths of the good calls (below 400) that have a line, 0 to 1,000,000.
    package var sampleMillionths = 1_000_000
}

/// A JSON object, or the combined format that web servers have in common.
package enum LogFormat: Sendable, Hashable { case json, combined }

/// The places for lines.
package enum LogTarget: Sendable, Hashable {
    case off, standardOutput, standardError
    case file(path: String)
    /// The socket of a syslog daemon.
    case syslog(path: String)
}

/// Where spans go: an OTLP/HTTP collector.
package struct TraceConfiguration: Sendable, Equatable {
    package var host: String
    /// 1 to 65,535.
    package var port: Int
    package var usesTLS: Bool
    /// With a leading slash.
    package var path: String
    /// Trust for TLS instead of the system's.
    package var caPath: String?
    /// Millionths of the calls without a parent that are kept, 0 to 1,000,000.
    package var sampleMillionths: Int
    /// `service.name`.
    package var service: String
}

/// The program's own log, on standard error.
package struct LogConfiguration: Sendable {
    /// `debug`, `info`, `warning` or `error`.
    package var level: String
    /// A JSON object a line instead of text.
    package var isJSON: Bool
}
