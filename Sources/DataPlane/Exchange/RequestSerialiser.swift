import HTTPWire
import Keys
import Reactor

// The request as the upstream sees it, written anew from its parsed form: what was ambiguous is gone, what
// belongs to the caller's connection is gone, and who calls is said by the gateway alone.

extension Worker {
    /// Writes the head of a call into a block of its own.
    ///
    /// - Returns: false when it does not fit; the caller is answered 431.
    func serialiseRequest(
        _ slot: Slot<Downstream>, _ exchange: Slot<Exchange>, headCount: Int, _ route: Int,
        _ key: Slot<ActiveKey>?
    ) -> Bool {
        let bytes = plain.value
        let identityCount = key?.value.identity.count ?? 0
        let routePlan = rows.routes[route]
        exchange.value.head = pool.take(
            atLeast: headCount + target.value.count + identityCount + routePlan.addPrefix.count
                + routePlan.host.count + routePlan.defaultHost.count + 768)
        var writer = ByteWriter(exchange.value.head)
        let isTrusted = isTrusted(slot.value.peer)
        writer.append(bytes.span(requestHead.value.methodRange))
        writer.append(byte: 0x20)
        let targetStart = writer.count
        writeTarget(routePlan, into: &writer)
        // The log shows paths, never queries: those hold what their senders did not mean to have written
        // down.
        exchange.value.targetRange = targetStart..<writer.count - requestHead.value.query.count
        writer.append(" HTTP/1.1\r\nHost: ")
        if !routePlan.host.isEmpty {
            writer.append(routePlan.host.readable)
        } else if requestHead.value.host.isEmpty {
            writer.append(routePlan.defaultHost.readable)
        } else {
            writer.append(bytes.span(requestHead.value.host))
        }
        writer.append("\r\n")
        writeFields(bytes, routePlan, isTrusted: isTrusted, into: &writer)
        if let key { writer.append(key.value.identity.readable) }
        writeForwarding(slot, bytes, isTrusted: isTrusted, into: &writer)
        writer.append("X-Request-Id: ")
        let start = writer.count
        let requestID = state.value.requestID
        writer.append(requestID.readable)
        exchange.value.requestID = start..<writer.count
        writer.append("\r\n")
        writeTrace(bytes, exchange, into: &writer)
        switch requestHead.value.body {
        case .none:
            if requestHead.value.saysEmptyBody { writer.append("Content-Length: 0\r\n") }
        case .length(let count):
            writer.append("Content-Length: ")
            writer.append(decimal: count)
            writer.append("\r\n")
        case .chunked:
            writer.append("Transfer-Encoding: chunked\r\n")
        }
        if exchange.value.wantsUpgrade {
            writer.append("Connection: Upgrade\r\nUpgrade: ")
            let start = writer.count
            writer.append(bytes.span(requestHead.value.upgrade))
            exchange.value.upgrade = start..<writer.count
            writer.append("\r\n")
        } else if requestHead.value.acceptsTrailers {
            writer.append("TE: trailers\r\nConnection: TE\r\n")
        }
        writer.append("\r\n")
        if writer.overflowed { return false }
        exchange.value.head.commit(writer)
        return true
    }

    private func writeTarget(_ route: RoutePlan, into writer: inout ByteWriter) {
        let whole = target.value
        if case .asterisk = requestHead.value.targetForm {
            writer.append(whole.readable)
            return
        }
        writer.append(route.addPrefix.readable)
        let strip = route.stripPrefix.count
        if strip > 0, hasPrefix(whole.readable, route.stripPrefix.readable) {
            if whole.count == strip || whole.readable[strip] == 0x3F { writer.append(byte: 0x2F) }
            writer.append(whole.span(strip..<whole.count))
        } else {
            writer.append(whole.readable)
        }
    }

    /// Whether a path starts with whole segments of `prefix`.
    private func hasPrefix(_ path: Span<UInt8>, _ prefix: Span<UInt8>) -> Bool {
        guard path.count >= prefix.count else { return false }
        for index in 0..<prefix.count where path[index] != prefix[index] { return false }
        return path.count == prefix.count || path[prefix.count] == 0x2F || path[prefix.count] == 0x3F
    }

    private func writeFields(
        _ bytes: Block, _ route: RoutePlan, isTrusted: Bool, into writer: inout ByteWriter
    ) {
        // Once, however often it was said, and also where `Connection` names it: who waits for a 100 would
        // wait for ever.
        if requestHead.value.expectsContinue { writer.append("Expect: 100-continue\r\n") }
        let hasNominations = requestHead.value.hasNominations
        for index in 0..<requestHead.value.fieldCount {
            let field = requestHead.value.fields[index]
            switch field.id {
            case .other, .contentType, .via, .date, .server, .wwwAuthenticate, .setCookie: break
            case .authorization: if !route.forwardsAuthorization { continue }
            case .maxForwards:
                // RFC 9110 section 7.6.2: one hop less; to other methods it means nothing.
                if requestHead.value.maxForwards >= 0 {
                    writer.append("Max-Forwards: ")
                    writer.append(decimal: requestHead.value.maxForwards - 1)
                    writer.append("\r\n")
                    continue
                }
            case .forwarded, .xRealIP, .xForwardedPort, .xForwardedProto, .xForwardedHost, .xForwardedOther,
                .xOriginalURL, .xRewriteURL:
                if !isTrusted { continue }
            case .host, .contentLength, .xForwardedFor, .xRequestID, .traceparent, .tracestate,
                .expect, .gatewayIdentity, .alias:
                continue
            default: continue
            }
            if hasNominations, requestHead.value.isNominated(index, in: bytes.readable) { continue }
            writer.append(field: bytes.span(field.name), bytes.span(field.value))
        }
    }

    private func writeForwarding(
        _ slot: Slot<Downstream>, _ bytes: Block, isTrusted: Bool, into writer: inout ByteWriter
    ) {
        writer.append("X-Forwarded-For: ")
        var hasProto = false
        var hasHost = false
        if isTrusted {
            for index in 0..<requestHead.value.fieldCount {
                switch requestHead.value.fields[index].id {
                case .xForwardedFor:
                    writer.append(bytes.span(requestHead.value.fields[index].value))
                    writer.append(", ")
                // What `Connection` names has ended here.
                case .xForwardedProto:
                    hasProto = hasProto || !requestHead.value.isNominated(index, in: bytes.readable)
                case .xForwardedHost:
                    hasHost = hasHost || !requestHead.value.isNominated(index, in: bytes.readable)
                default: continue
                }
            }
        }
        slot.value.peer.write(ipInto: &writer)
        writer.append(hasProto ? "\r\n" : "\r\nX-Forwarded-Proto: https\r\n")
        if !hasHost, !requestHead.value.host.isEmpty {
            writer.append("X-Forwarded-Host: ")
            writer.append(bytes.span(requestHead.value.host))
            writer.append("\r\n")
        }
        // The protocol that the message came with (RFC 9110 section 7.6.3).
        if slot.value.kind == .stream {
            writer.append("Via: 2.0 gateway\r\n")
        } else {
            writer.append(
                requestHead.value.minorVersion == 0 ? "Via: 1.0 gateway\r\n" : "Via: 1.1 gateway\r\n")
        }
    }

    /// Continues the caller's trace, or starts one (W3C Trace Context, section 3.2).
    private func writeTrace(_ bytes: Block, _ exchange: Slot<Exchange>, into writer: inout ByteWriter) {
        let (trace, isContinued) = takeTrace(bytes)
        exchange.value.traceHigh = trace.high
        exchange.value.traceLow = trace.low
        exchange.value.parentSpan = trace.span
        exchange.value.clientSpan = state.value.random.next() | 1
        exchange.value.serverSpan = serverSpan(trace)
        writer.append("traceparent: 00-")
        writer.append(hexadecimal: exchange.value.traceHigh, minimumDigits: 16)
        writer.append(hexadecimal: exchange.value.traceLow, minimumDigits: 16)
        writer.append(byte: 0x2D)
        writer.append(hexadecimal: exchange.value.clientSpan, minimumDigits: 16)
        writer.append(byte: 0x2D)
        writer.append(hexadecimal: trace.flags, minimumDigits: 2)
        writer.append("\r\n")
        guard isContinued else { return }
        for index in 0..<requestHead.value.fieldCount {
            guard case .tracestate = requestHead.value.fields[index].id else { continue }
            writer.append("tracestate: ")
            writer.append(bytes.span(requestHead.value.fields[index].value))
            writer.append("\r\n")
        }
    }
}

extension Worker {
    /// The trace of the request whose head has been parsed: its caller's, or one that begins here.
    ///
    /// - Parameter bytes: what the head stands in; nil for a request without one.
    func takeTrace(_ bytes: Block?) -> (trace: TraceParent, isContinued: Bool) {
        if let bytes, let trace = callersTrace(bytes) { return (trace, true) }
        var trace = TraceParent()
        trace.high = state.value.random.next()
        trace.low = state.value.random.next() | 1
        trace.flags = isSampled() ? 1 : 0
        return (trace, false)
    }

    /// Two of them mean that somebody on the way does not know the rules: none is continued.
    private func callersTrace(_ bytes: Block) -> TraceParent? {
        var found: TraceParent?
        for index in 0..<requestHead.value.fieldCount {
            guard case .traceparent = requestHead.value.fields[index].id else { continue }
            let parent = TraceParent(bytes.span(requestHead.value.fields[index].value))
            guard let parent, found == nil else { return nil }
            found = parent
        }
        return found
    }

    /// The number of the server's span in a trace; 0 when the call is not sampled.
    func serverSpan(_ trace: TraceParent) -> UInt64 {
        trace.flags & 1 == 1 && rows.traceShare >= 0 ? state.value.random.next() | 1 : 0
    }

    /// Whether a trace that begins here is kept; one that began elsewhere is kept where its caller keeps it.
    private func isSampled() -> Bool {
        let share = rows.traceShare
        return share > 0 && state.value.random.next() % UInt64(ServingPlan.wholeLogShare) < UInt64(share)
    }
}

/// A `traceparent` value: `00-<32 hex>-<16 hex>-<2 hex>`, lower case, neither identifier zero.
struct TraceParent {
    var high: UInt64 = 0
    var low: UInt64 = 0
    var span: UInt64 = 0
    var flags: UInt64 = 0

    init() {}

    init?(_ bytes: Span<UInt8>) {
        guard bytes.count >= 55, bytes[2] == 0x2D, bytes[35] == 0x2D, bytes[52] == 0x2D,
            let version = Self.number(bytes, 0..<2), version != 0xFF,
            bytes.count == 55 || version > 0 && bytes[55] == 0x2D,
            let high = Self.number(bytes, 3..<19), let low = Self.number(bytes, 19..<35),
            let parent = Self.number(bytes, 36..<52), let flags = Self.number(bytes, 53..<55),
            high | low != 0, parent != 0
        else { return nil }
        self.high = high
        self.low = low
        span = parent
        self.flags = flags & 1
    }

    private static func number(_ bytes: Span<UInt8>, _ range: Range<Int>) -> UInt64? {
        var value: UInt64 = 0
        for index in range {
            switch bytes[index] {
            case 0x30...0x39: value = value << 4 | UInt64(bytes[index] - 0x30)
            case 0x61...0x66: value = value << 4 | UInt64(bytes[index] - 0x57)
            default: return nil
            }
        }
        return value
    }
}
