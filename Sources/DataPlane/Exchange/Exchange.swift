import HTTPWire
import Limits
import Reactor

/// One call from its head to the last byte of its answer.
struct Exchange: ~Copyable {
    enum Phase: UInt8 {
        /// The limiter's answer is awaited.
        case awaitingLimit
        /// No connection to the upstream yet.
        case connecting
        /// The request is under way or sent; no final status line has come.
        case awaitingResponse
        /// The answer's head has gone to the caller.
        case streaming
    }

    var downstream = SlotReference.none
    var upstreamConnection = SlotReference.none
    var phase = Phase.connecting
    /// The serialised request head, kept to the end for a retry and for the log.
    var head = Block.none
    /// Numbers that mean the same in every configuration; -1 where there is none.
    var series: Int32 = -1
    var upstream: Int32 = -1
    var endpoint: Int32 = -1
    /// Slot of the caller's key, -1 on public routes.
    var key: Int32 = -1
    var tier: Int32 = -1
    /// Permits that it takes.
    var cost: Int64 = 0
    var method = Method.other
    var minorVersion: UInt8 = 1
    /// Whether the caller's connection stays open after the answer.
    var keepsAlive = false
    /// The body as it comes from the caller.
    var requestFraming = BodyFraming.none
    var requestRemaining: Int64 = 0
    var requestChunks = ChunkDecoder()
    /// Whether all of the request has been passed on.
    var requestIsSent = false
    /// Whether the last chunk's line has been written already because trailers follow it.
    var hasRequestTrailers = false
    var hasResponseTrailers = false
    /// Whether `Connection` names fields, trailer fields perhaps among them: then no trailers are passed on,
    /// which a recipient must always expect (RFC 9110 sections 6.5.1 and 7.6.1).
    var dropsRequestTrailers = false
    var dropsResponseTrailers = false
    /// Whether the answer is a stream of events, which nobody half-closes to wait for its end.
    var isEventStream = false
    /// Interim answers passed on.
    var interimAnswers: Int32 = 0
    var requestBodyBytes: Int64 = 0
    /// What an upstream of HTTP/2 has been sent of the body, as long as that is little and no answer has
    /// come: a call that is refused unread is sent again with it.
    var keptBody = Block.none
    /// Whether more has been sent than is kept.
    var hasLostBody = false
    var requestBodyLimit: Int64 = 0
    /// Whether the upstream was asked if it wants the body, and has not said so.
    var expectsContinue = false
    var acceptsTrailers = false
    var isGRPC = false
    /// Whether the caller asks for another protocol, and where its name stands in `head`.
    var wantsUpgrade = false
    var upgrade = 0..<0
    /// Whether the upstream has switched protocols: bytes pass both ways until either side ends.
    var isTunnel = false
    /// Whether they are WebSocket's, and its frames either way.
    var isWebSocket = false
    var upstreamFrames = WebSocketFollower()
    var callerFrames = WebSocketFollower()
    /// The instant by which a gRPC call must be over; 0 for none.
    var deadlineMicroseconds: Int64 = 0
    /// Longest silence once an answer has begun; 0 keeps the response timeout except for streams.
    var idleTimeoutMicroseconds: Int64 = 0
    /// The body as it comes from the upstream.
    var responseFraming = ResponseFraming.none
    var responseRemaining: Int64 = 0
    var responseChunks = ChunkDecoder(isOfAnswer: true)
    /// Whether the answer goes to the caller in chunks.
    var sendsChunks = false
    var responseBodyBytes: Int64 = 0
    /// Attempts made so far.
    var attempts: UInt8 = 0
    /// Whether the limiter has a say in this answer, and what it said.
    var hasDecision = false
    var decision = Decision(isGranted: true, count: 0)
    var decisionMicroseconds: Int64 = 0
    /// Where the request identifier stands in `head`.
    var requestID = 0..<0
    /// Where the path, as forwarded, stands in `head`.
    var targetRange = 0..<0
    var traceHigh: UInt64 = 0
    var traceLow: UInt64 = 0
    /// Of this call's spans; the first is 0 when it is not sampled.
    var serverSpan: UInt64 = 0
    var clientSpan: UInt64 = 0
    var parentSpan: UInt64 = 0
    var status: Int32 = 0
    var reason: Reason = .none
    var startMicroseconds: Int64 = 0
    /// Since when it waits for a connection; 0 when it never has.
    var queuedMicroseconds: Int64 = 0
    var upstreamStartMicroseconds: Int64 = 0
    /// Until the answer's head had come; -1 while it has not.
    var upstreamMicroseconds: Int64 = -1
    /// Over: waits for the end of the turn to be freed.
    var isDead = false
    var responseTimeoutMicroseconds: Int64 = 0

    init() {}

    /// Takes what a request says.
    mutating func begin(
        downstream: SlotReference, route: RoutePlan, key: Int32, tier: Int32,
        head: borrowing RequestHead, startMicroseconds: Int64
    ) {
        self.downstream = downstream
        series = route.series
        upstream = Int32(route.upstream)
        cost = route.cost
        self.key = key
        self.tier = tier
        method = head.method
        minorVersion = UInt8(truncatingIfNeeded: head.minorVersion)
        keepsAlive = head.keepAlive
        requestFraming = head.body
        if case .length(let count) = head.body { requestRemaining = count }
        if case .none = head.body { requestIsSent = true }
        requestBodyLimit = route.bodyBytes
        expectsContinue = head.expectsContinue
        acceptsTrailers = head.acceptsTrailers
        dropsRequestTrailers = head.hasNominations
        isGRPC = head.isGRPC
        wantsUpgrade = head.wantsUpgrade
        idleTimeoutMicroseconds = route.idleTimeoutMicroseconds
        self.startMicroseconds = startMicroseconds
        responseTimeoutMicroseconds = route.responseTimeoutMicroseconds
    }
}

/// Why an answer is what it is: the `reason` of the access log.
enum Reason: UInt8, CaseIterable {
    case none, badRequest, keyMissing, keyMalformed, keyUnknown, keyExpired, keyDisabled, keyRevoked
    case keyRecordUnusable, tooManyFailures, scopeMissing, noRoute, methodNotAllowed, limited, requestTimeout
    case tooLarge, misdirected, plainHTTP, storeUnavailable, overloaded, noHealthyEndpoint, connectFailed
    case upstreamClosed, upstreamNonsense, upstreamTimeout, upgradeUnsupported, callerGone, draining
    case tunnelCut

    var text: StaticString {
        switch self {
        case .none: return "ok"
        case .badRequest: return "bad_request"
        case .keyMissing: return "key_missing"
        case .keyMalformed: return "key_malformed"
        case .keyUnknown: return "key_unknown"
        case .keyExpired: return "key_expired"
        case .keyDisabled: return "key_disabled"
        case .keyRevoked: return "key_revoked"
        case .keyRecordUnusable: return "key_record_unusable"
        case .tooManyFailures: return "too_many_failures"
        case .scopeMissing: return "scope_missing"
        case .noRoute: return "no_route"
        case .methodNotAllowed: return "method_not_allowed"
        case .limited: return "limited"
        case .requestTimeout: return "request_timeout"
        case .tooLarge: return "too_large"
        case .misdirected: return "misdirected"
        case .plainHTTP: return "plain_http"
        case .storeUnavailable: return "store_unavailable"
        case .overloaded: return "overloaded"
        case .noHealthyEndpoint: return "no_healthy_endpoint"
        case .connectFailed: return "connect_failed"
        case .upstreamClosed: return "upstream_closed"
        case .upstreamNonsense: return "upstream_nonsense"
        case .upstreamTimeout: return "upstream_timeout"
        case .upgradeUnsupported: return "upgrade_unsupported"
        case .callerGone: return "caller_gone"
        case .draining: return "draining"
        case .tunnelCut: return "tunnel_cut"
        }
    }
}
