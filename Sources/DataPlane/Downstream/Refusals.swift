import Configuration
import HTTPWire
import Keys
import Limits
import Reactor

// Every answer that the gateway makes itself: JSON with exactly a code and a message, or the same as a
// trailers-only gRPC response.

/// Status, code and message of a refusal.
struct RefusalText {
    var status: Int
    var code: StaticString
    var message: StaticString

    init(_ status: Int, _ code: StaticString, _ message: StaticString) {
        self.status = status
        self.code = code
        self.message = message
    }

    init(_ reason: Reason) {
        switch reason {
        case .none, .badRequest:
            self.init(400, "BAD_REQUEST", "The request is malformed.")
        case .keyMissing, .keyMalformed, .keyUnknown, .keyExpired, .keyDisabled, .keyRevoked,
            .keyRecordUnusable:
            self.init(401, "INVALID_API_KEY", "The provided API key is invalid or has been revoked.")
        case .scopeMissing:
            self.init(
                403, "INSUFFICIENT_PERMISSIONS", "Your API key doesn't have access to this resource.")
        case .noRoute:
            self.init(404, "NOT_FOUND", "No such resource.")
        case .methodNotAllowed:
            self.init(405, "METHOD_NOT_ALLOWED", "This resource does not support this method.")
        case .requestTimeout:
            self.init(408, "REQUEST_TIMEOUT", "The request did not arrive in time.")
        case .tooLarge:
            self.init(413, "PAYLOAD_TOO_LARGE", "The request body is larger than this API accepts.")
        case .misdirected:
            self.init(421, "MISDIRECTED_REQUEST", "This connection does not serve the requested host.")
        case .plainHTTP:
            self.init(426, "HTTPS_REQUIRED", "This API is available over HTTPS only.")
        case .limited, .tooManyFailures:
            self.init(429, "RATE_LIMIT_EXCEEDED", "Rate limit exceeded. Try again in ")
        case .connectFailed, .upstreamClosed, .upstreamNonsense, .callerGone, .tunnelCut:
            self.init(502, "UPSTREAM_ERROR", "The service behind this API failed to answer.")
        case .upgradeUnsupported:
            self.init(501, "NOT_IMPLEMENTED", "The service behind this API takes no upgrades.")
        case .upstreamTimeout:
            self.init(504, "UPSTREAM_TIMEOUT", "The service behind this API did not answer in time.")
        case .storeUnavailable, .overloaded, .noHealthyEndpoint, .draining:
            self.init(
                503, "SERVICE_UNAVAILABLE", "The service is temporarily unavailable. Try again shortly.")
        }
    }

    /// For what the HTTP parser refuses: the message says what is malformed.
    init(parser refusal: Refusal) {
        switch refusal.status {
        case 405: self.init(405, "METHOD_NOT_ALLOWED", refusal.reason)
        case 414: self.init(414, "URI_TOO_LONG", refusal.reason)
        case 417: self.init(417, "EXPECTATION_FAILED", refusal.reason)
        case 431: self.init(431, "HEADERS_TOO_LARGE", refusal.reason)
        case 501: self.init(501, "NOT_IMPLEMENTED", refusal.reason)
        case 505: self.init(505, "HTTP_VERSION_NOT_SUPPORTED", refusal.reason)
        default: self.init(400, "BAD_REQUEST", refusal.reason)
        }
    }

    /// gRPC's status for an HTTP status.
    var grpcStatus: Int64 {
        switch status {
        case 401: return 16
        case 403: return 7
        case 404, 405: return 12
        case 413, 414, 429, 431: return 8
        case 400, 417: return 13
        default: return 14
        }
    }
}

/// What a refusal needs to know of the call it answers.
struct RefusalContext {
    var text: RefusalText
    var method = Method.get
    var minorVersion = 1
    var isGRPC = false
    var closes = false
    /// Seconds of `Retry-After`, 0 for none.
    var retryAfter: Int64 = 0
    /// `WWW-Authenticate` line, `Allow` value: empty for none.
    var challenge: StaticString = ""
    var scopeLine = Block.none
    var allow = Block.none
    var hasDecision = false
    var decision = Decision(isGranted: true, count: 0)
    var decisionMicroseconds: Int64 = 0
    var isUpgradeRequired = false
    /// False for an answer that is no refusal and says all in its fields.
    var hasContent = true

    init(_ text: RefusalText) { self.text = text }

    /// Tells limits of which nothing was spent.
    mutating func tell(_ known: Decision, at microseconds: Int64) {
        decision = known
        decision.isGranted = true
        decisionMicroseconds = microseconds
        hasDecision = true
    }
}

extension Worker {
    static let methodsWithoutConnect: StaticString =
        "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH\r\n"
    static let challengeMissing: StaticString = "WWW-Authenticate: Bearer realm=\"api\"\r\n"
    static let challengeInvalid: StaticString =
        "WWW-Authenticate: Bearer realm=\"api\", error=\"invalid_token\"\r\n"

    /// Writes a refusal into the caller's scratch block.
    func writeRefusal(
        _ slot: Slot<Downstream>, _ context: RefusalContext, requestID: Span<UInt8>,
        key: Slot<ActiveKey>?
    ) {
        claimOutput(slot)
        let text = context.text
        var writer = ByteWriter(toDownstream.value)
        let grpcHead = context.isGRPC && !context.isUpgradeRequired && context.hasContent
        StatusText.writeLine(grpcHead ? 200 : text.status, into: &writer)
        writer.append(state.value.dateLine.readable)
        let hasContent = context.hasContent && !grpcHead
        if context.hasContent {
            writer.append(
                grpcHead
                    ? "Content-Type: application/grpc\r\n"
                    : "Content-Type: application/json\r\nCache-Control: no-store\r\n")
        }
        writer.append("X-Request-Id: ")
        writer.append(requestID)
        writer.append("\r\n")
        if grpcHead {
            writer.append("grpc-status: ")
            writer.append(decimal: text.grpcStatus)
            writer.append("\r\ngrpc-message: ")
            writeMessage(context, into: &writer)
            writer.append("\r\n")
        }
        writer.append(context.challenge)
        writer.append(context.scopeLine.readable)
        if context.allow.count > 0 {
            writer.append("Allow: ")
            writer.append(context.allow.readable)
            writer.append("\r\n")
        }
        if context.retryAfter > 0 {
            writer.append("Retry-After: ")
            writer.append(decimal: context.retryAfter)
            writer.append("\r\n")
        }
        if context.hasDecision, let key {
            writeRateLimit(
                context.decision, at: context.decisionMicroseconds,
                retryAfter: context.decision.isGranted ? nil : max(1, context.retryAfter), key,
                into: &writer)
        }
        writer.append("Content-Length: ")
        writer.append(decimal: hasContent ? Int64(bodyCount(context)) : 0)
        if context.isUpgradeRequired {
            writer.append("\r\nUpgrade: TLS/1.2, HTTP/1.1\r\nConnection: Upgrade, close\r\n\r\n")
        } else if context.closes {
            writer.append("\r\nConnection: close\r\n\r\n")
        } else {
            writer.append(
                context.minorVersion == 0 ? "\r\nConnection: keep-alive\r\n\r\n" : "\r\n\r\n")
        }
        if hasContent, context.method != .head {
            writer.append("{\"error\":{\"code\":\"")
            writer.append(text.code)
            writer.append("\",\"message\":\"")
            writeMessage(context, into: &writer)
            writer.append("\"}}")
        }
        toDownstream.value.commit(writer)
    }

    private func writeMessage(_ context: RefusalContext, into writer: inout ByteWriter) {
        writer.append(context.text.message)
        guard context.text.status == 429 else { return }
        writer.append(decimal: max(1, context.retryAfter))
        writer.append(context.retryAfter <= 1 ? " second." : " seconds.")
    }

    private func bodyCount(_ context: RefusalContext) -> Int {
        var count = 34 + context.text.code.utf8CodeUnitCount + context.text.message.utf8CodeUnitCount
        if context.text.status == 429 {
            var number = max(1, context.retryAfter)
            while number > 0 {
                count += 1
                number /= 10
            }
            count += context.retryAfter <= 1 ? 8 : 9
        }
        return count
    }

    // MARK: Refusals of a head that is being read

    /// Answers what the parser refused. Framing is in doubt: the connection closes.
    func refuseMalformed(_ slot: Slot<Downstream>, _ refusal: Refusal) {
        answerMalformed(slot, RefusalText(parser: refusal))
    }

    func refuseMalformed(_ slot: Slot<Downstream>, _ status: Int, _ reason: StaticString) {
        answerMalformed(slot, RefusalText(status, "BAD_REQUEST", reason))
    }

    private func answerMalformed(_ slot: Slot<Downstream>, _ text: RefusalText) {
        var context = RefusalContext(text)
        context.closes = true
        context.method = requestHead.value.method
        context.isGRPC = slot.value.kind == .stream ? slot.value.stream.isGRPC : requestHead.value.isGRPC
        // RFC 9110 section 15.5.6: a 405 says what there is.
        if text.status == 405 { context.challenge = Self.methodsWithoutConnect }
        let requestID = state.value.requestID
        writeRefusal(slot, context, requestID: requestID.readable, key: nil)
        recordRefusal(slot, text.status, .badRequest, route: -1, key: nil, hasHead: false)
        slot.value.isFinishing = true
    }

    /// Answers a connection that has no request in hand, like one whose head did not arrive in time.
    func refuse(_ slot: Slot<Downstream>, _ reason: Reason, closing: Bool) {
        makeRequestID(slot, trusting: false)
        let text = RefusalText(reason)
        var context = RefusalContext(text)
        context.closes = closing
        let requestID = state.value.requestID
        writeRefusal(slot, context, requestID: requestID.readable, key: nil)
        recordRefusal(slot, text.status, reason, route: -1, key: nil, hasHead: false)
        slot.value.isFinishing = closing
    }

    /// Answers the head being read.
    ///
    /// - Returns: whether the connection may have more to read at once.
    func refuse(
        _ slot: Slot<Downstream>, _ reason: Reason, headCount: Int, route: Int = -1,
        key: Slot<ActiveKey>? = nil, entry: Int = -1, retryAfter: Int64 = 0
    ) -> Bool {
        var context = RefusalContext(RefusalText(reason))
        context.retryAfter = retryAfter
        switch reason {
        case .scopeMissing: context.scopeLine = rows.routes[route].insufficientScope
        case .methodNotAllowed: context.allow = rows.router.entries[entry].allow
        case .keyMissing: context.challenge = Self.challengeMissing
        case .keyMalformed, .keyUnknown, .keyExpired, .keyDisabled, .keyRevoked, .keyRecordUnusable:
            context.challenge = Self.challengeInvalid
        case .storeUnavailable, .overloaded, .noHealthyEndpoint, .draining:
            context.retryAfter = max(1, retryAfter)
        default: break
        }
        if let key, hasNoDecisionYet(reason) { inspectLimit(key, into: &context) }
        return finishRefusal(slot, context, reason, headCount: headCount, route: route, key)
    }

    /// Answers a call that may go no further (RFC 9110 section 7.6.2): OPTIONS with what the route has, TRACE
    /// not at all, for it would show what the gateway adds.
    func answerAsLast(
        _ slot: Slot<Downstream>, headCount: Int, route: Int, key: Slot<ActiveKey>?
    ) -> Bool {
        let path = target.value
        guard let entry = rows.router.match(path.span(0..<path.count - requestHead.value.query.count)) else {
            return refuse(slot, .noRoute, headCount: headCount, key: key)
        }
        guard requestHead.value.method == .options else {
            return refuse(
                slot, .methodNotAllowed, headCount: headCount, route: route, key: key, entry: entry)
        }
        var context = RefusalContext(RefusalText(200, "", ""))
        context.hasContent = false
        context.allow = rows.router.entries[entry].allow
        if let key { inspectLimit(key, into: &context) }
        return finishRefusal(slot, context, .none, headCount: headCount, route: route, key)
    }

    func refuseLimited(
        _ slot: Slot<Downstream>, headCount: Int, route: Int, _ key: Slot<ActiveKey>,
        _ decision: Decision, _ now: Int64
    ) -> Bool {
        var context = RefusalContext(RefusalText(.limited))
        context.hasDecision = true
        context.decision = decision
        context.decisionMicroseconds = now
        context.retryAfter = Self.retryAfter(decision, now, key)
        return finishRefusal(slot, context, .limited, headCount: headCount, route: route, key)
    }

    /// Whole seconds until the same call is let in; the window's length where it never is.
    static func retryAfter(_ decision: Decision, _ now: Int64, _ key: Slot<ActiveKey>) -> Int64 {
        if decision.retryMicroseconds == 0 { return key.value.plan.windows[0].lengthSeconds }
        return retryAfterSeconds(nowMicroseconds: now, retryMicroseconds: decision.retryMicroseconds)
    }

    /// Answers to a valid key carry its limits even where nothing was spent.
    private func hasNoDecisionYet(_ reason: Reason) -> Bool {
        reason == .scopeMissing || reason == .noRoute || reason == .methodNotAllowed || reason == .tooLarge
    }

    private func finishRefusal(
        _ slot: Slot<Downstream>, _ base: RefusalContext, _ reason: Reason, headCount: Int, route: Int,
        _ key: Slot<ActiveKey>?
    ) -> Bool {
        var context = base
        context.method = requestHead.value.method
        context.minorVersion = requestHead.value.minorVersion
        context.isGRPC = requestHead.value.isGRPC
        let body = requestHead.value.body
        var closes = !requestHead.value.keepAlive || state.value.isDraining
        // Another request may stand behind this one when its caller has said goodbye.
        if slot.value.inputEnded, body != .none || plain.value.count <= headCount { closes = true }
        // A caller that waits for 100 may or may not send its body now: where the next request begins is in
        // doubt.
        if body != .none, requestHead.value.expectsContinue || slot.value.kind == .stream { closes = true }
        if case .length(let count) = body, count > HardLimits.drainBytes { closes = true }
        context.closes = closes
        let requestID = state.value.requestID
        writeRefusal(slot, context, requestID: requestID.readable, key: key)
        recordRefusal(slot, context.text.status, reason, route: route, key: key, hasHead: true)
        plain.value.consume(headCount)
        slot.value.requests += 1
        if closes {
            slot.value.isFinishing = true
            return false
        }
        switch body {
        case .none:
            awaitNextRequest(slot)
            return true
        case .length(let count):
            slot.value.discardRemaining = count
            slot.value.discardIsChunked = false
        case .chunked:
            slot.value.discardRemaining = HardLimits.drainBytes
            slot.value.discardIsChunked = true
            slot.value.discardChunks = ChunkDecoder()
        }
        slot.value.request = .discarding
        setTimer(slot, after: Int64(timeouts.body) * 1_000)
        return true
    }

    /// A credential that does not let in: 401, or 429 to an address that fails too often, or 503 when nobody
    /// can tell.
    func refuseCredential(_ slot: Slot<Downstream>, _ reason: Reason, headCount: Int) -> Bool {
        countAuthentication(reason)
        if reason == .storeUnavailable || reason == .overloaded {
            return refuse(slot, reason, headCount: headCount, retryAfter: 1)
        }
        let prefix = callerAddress(slot).rateLimitPrefix
        let now = state.value.nowMicroseconds
        let blockedUntil = shared.failures.recordFailure(prefix: prefix, nowMicroseconds: now)
        if blockedUntil > 0 {
            return refuse(
                slot, .tooManyFailures, headCount: headCount,
                retryAfter: retryAfterSeconds(nowMicroseconds: now, retryMicroseconds: blockedUntil))
        }
        return refuse(slot, reason, headCount: headCount)
    }

    private func countAuthentication(_ reason: Reason) {
        let result: WorkerMetrics.Authentication
        switch reason {
        case .keyMissing: result = .missing
        case .keyMalformed: result = .malformed
        case .keyExpired: result = .expired
        case .keyDisabled: result = .disabled
        case .keyRevoked: result = .revoked
        case .storeUnavailable, .overloaded: result = .unavailable
        default: result = .unknown
        }
        metrics.authentication.add(result.rawValue)
    }
}
