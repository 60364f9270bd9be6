import HTTP2
import HTTPWire
import Keys
import Limits
import Reactor

extension Worker {
    /// Writes the upstream's answer head for the caller, with the gateway's own fields.
    ///
    /// - Parameter bytes: the block in which `responseHead` was parsed.
    func serialiseResponse(_ exchange: Slot<Exchange>, _ bytes: Block) -> Bool {
        var writer = ByteWriter(toDownstream.value)
        writeStatusLine(bytes, into: &writer)
        writeResponseFields(bytes, into: &writer)
        if !responseHead.value.hasDate { writer.append(state.value.dateLine.readable) }
        writer.append(
            responseHead.value.minorVersion == 0
                ? "Via: 1.0 gateway\r\nX-Request-Id: " : "Via: 1.1 gateway\r\nX-Request-Id: ")
        writer.append(exchange.value.head.span(exchange.value.requestID))
        writer.append("\r\n")
        if exchange.value.hasDecision, let key = keys.occupant(at: Int(exchange.value.key)) {
            writeRateLimit(
                exchange.value.decision, at: exchange.value.decisionMicroseconds, retryAfter: nil, key,
                into: &writer)
        }
        chooseFraming(exchange, into: &writer)
        if !exchange.value.keepsAlive {
            writer.append("Connection: close\r\n")
        } else if exchange.value.minorVersion == 0 {
            writer.append("Connection: keep-alive\r\n")
        }
        writer.append("\r\n")
        if writer.overflowed { return false }
        toDownstream.value.commit(writer)
        return true
    }

    /// The same for a stream of HTTP/2, whose fields go to the engine without a way through text.
    ///
    /// - Returns: whether the stream is still there.
    func submitResponse(_ exchange: Slot<Exchange>, _ bytes: Block, to slot: Slot<Downstream>) -> Bool {
        // Interim answers have been written as text, and go first.
        if toDownstream.value.count > downstreamParts.value.start { emitDirectly(slot, .none, 0..<0) }
        guard !slot.value.isDead, let connection = downstreams.lookup(slot.value.stream.connection),
            !connection.value.isDead
        else { return false }
        let now = state.value.nowMicroseconds
        let taught = connection.value.multiplex.namesTaughtMicroseconds
        let teaches = now >= taught + HardLimits.namesMicroseconds
        if teaches { connection.value.multiplex.namesTaughtMicroseconds = now }
        http2.beginResponse(status: responseHead.value.status, teachesNames: teaches)
        for index in 0..<responseHead.value.fieldCount where passesOn(index, bytes) {
            http2.add(bytes, responseHead.value.fields[index])
        }
        if !responseHead.value.hasDate {
            let line = state.value.dateLine
            http2.add("date", line, 6..<line.count - 2)
        }
        http2.add("via", responseHead.value.minorVersion == 0 ? "1.0 gateway" : "1.1 gateway")
        http2.add("x-request-id", exchange.value.head, exchange.value.requestID, isFleeting: true)
        let start = toDownstream.value.count
        if exchange.value.hasDecision, let key = keys.occupant(at: Int(exchange.value.key)) {
            addRateLimit(exchange.value.decision, at: exchange.value.decisionMicroseconds, key)
        }
        addLength()
        exchange.value.sendsChunks = expectBody(slot, responseHead.value.framing) == .chunks
        let sent = http2.submitResponse(
            connection.value.multiplex.session, stream: slot.value.stream.number, tag: tag(of: slot),
            hasBody: slot.value.stream.answer != .ended)
        metrics.add(.bytesToDownstream, UInt64(sent))
        toDownstream.value.truncate(to: start)
        return true
    }

    private func addLength() {
        // A gRPC answer without messages is its trailers alone, of which a length is no part.
        guard !responseHead.value.isGRPC else { return }
        switch responseHead.value.framing {
        case .length(let count): http2.add("content-length", decimal: count)
        case .none where responseHead.value.contentLength >= 0 && responseHead.value.status != 204:
            http2.add("content-length", decimal: responseHead.value.contentLength)
        default: break
        }
    }

    /// The head that opens a tunnel.
    func serialiseSwitch(_ exchange: Slot<Exchange>, _ bytes: Block) -> Bool {
        var writer = ByteWriter(toDownstream.value)
        StatusText.writeLine(101, into: &writer)
        writeResponseFields(bytes, into: &writer)
        writer.append("Via: 1.1 gateway\r\nX-Request-Id: ")
        writer.append(exchange.value.head.span(exchange.value.requestID))
        writer.append("\r\n")
        if exchange.value.hasDecision, let key = keys.occupant(at: Int(exchange.value.key)) {
            writeRateLimit(
                exchange.value.decision, at: exchange.value.decisionMicroseconds, retryAfter: nil, key,
                into: &writer)
        }
        writer.append("Connection: Upgrade\r\nUpgrade: ")
        writer.append(bytes.span(responseHead.value.upgrade))
        writer.append("\r\n\r\n")
        if writer.overflowed { return false }
        toDownstream.value.commit(writer)
        return true
    }

    /// An interim answer (RFC 9110 section 15.2), passed on as it is.
    func serialiseInterim(_ bytes: Block) -> Bool {
        var writer = ByteWriter(toDownstream.value)
        writeStatusLine(bytes, into: &writer)
        writeResponseFields(bytes, into: &writer)
        writer.append("\r\n")
        if writer.overflowed { return false }
        toDownstream.value.commit(writer)
        return true
    }

    private func writeStatusLine(_ bytes: Block, into writer: inout ByteWriter) {
        let reason = responseHead.value.reason
        guard !reason.isEmpty else {
            StatusText.writeLine(responseHead.value.status, into: &writer)
            return
        }
        writer.append("HTTP/1.1 ")
        writer.append(decimal: Int64(responseHead.value.status))
        writer.append(byte: 0x20)
        writer.append(bytes.span(reason))
        writer.append("\r\n")
    }

    private func writeResponseFields(_ bytes: Block, into writer: inout ByteWriter) {
        for index in 0..<responseHead.value.fieldCount where passesOn(index, bytes) {
            let field = responseHead.value.fields[index]
            writer.append(field: bytes.span(field.name), bytes.span(field.value))
        }
    }

    /// Whether a field of the upstream's answer is the caller's too.
    private func passesOn(_ index: Int, _ bytes: Block) -> Bool {
        let id = responseHead.value.fields[index].id
        switch id {
        case .other: break
        case .contentLength, .xRequestID, .gatewayIdentity: return false
        default: if id.isHopByHop { return false }
        }
        return !responseHead.value.hasNominations
            || !responseHead.value.isNominated(index, in: bytes.readable)
    }

    /// Decides how the caller learns where the body ends.
    private func chooseFraming(_ exchange: Slot<Exchange>, into writer: inout ByteWriter) {
        let status = responseHead.value.status
        exchange.value.sendsChunks = false
        switch responseHead.value.framing {
        case .none:
            // HEAD and 304 may say how long the body would be; 204 must not (RFC 9110 section 8.6).
            if responseHead.value.contentLength >= 0, status != 204 {
                writer.append("Content-Length: ")
                writer.append(decimal: responseHead.value.contentLength)
                writer.append("\r\n")
            }
        case .length(let count):
            writer.append("Content-Length: ")
            writer.append(decimal: count)
            writer.append("\r\n")
        case .chunked, .untilClose:
            if exchange.value.minorVersion == 1 {
                exchange.value.sendsChunks = true
                writer.append("Transfer-Encoding: chunked\r\n")
            } else {
                exchange.value.keepsAlive = false
            }
        }
    }
}
