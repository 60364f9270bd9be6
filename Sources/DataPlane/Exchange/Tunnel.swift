import HTTP2
import HTTPWire
import Reactor
import TLS

// WebSocket and other protocols that begin as a request: once the upstream has agreed with 101, bytes pass
// both ways as they are until either side ends. Not one byte passes before (RFC 9110 section 7.8).

extension Worker {
    /// The upstream switches protocols.
    ///
    /// - Returns: whether to go on reading its answer.
    func openTunnel(
        _ exchange: Slot<Exchange>, _ connection: Slot<UpstreamConnection>, _ block: Block
    ) -> Bool {
        guard exchange.value.wantsUpgrade, responseHead.value.hasUpgradeOption,
            isAskedFor(exchange, block.span(responseHead.value.upgrade)),
            let slot = downstreams.lookup(exchange.value.downstream),
            provesAgreement(exchange, connection, slot, block), serialiseSwitch(exchange, block)
        else {
            upstreamFailed(exchange, connection, .upstreamNonsense)
            return false
        }
        exchange.value.status = 101
        exchange.value.upstreamMicroseconds =
            state.value.nowMicroseconds &- exchange.value.upstreamStartMicroseconds
        noteSuccess(connection)
        exchange.value.isTunnel = true
        exchange.value.isWebSocket = block.span(responseHead.value.upgrade).equalsIgnoringCase("websocket")
        exchange.value.keepsAlive = false
        exchange.value.phase = .streaming
        exchange.value.responseFraming = .untilClose
        exchange.value.sendsChunks = false
        connection.value.mayBeKept = false
        allowSilence(exchange)
        slot.value.request = .tunnel
        if slot.value.output.isEmpty { cancelTimer(slot) }
        // What the caller has sent already.
        resumeLater(slot)
        return true
    }

    /// Whether the protocol that the upstream has chosen is among those that the caller named.
    private func isAskedFor(_ exchange: Slot<Exchange>, _ chosen: Span<UInt8>) -> Bool {
        let head = exchange.value.head
        let asked = head.span(exchange.value.upgrade)
        var start = 0
        while start < asked.count {
            while start < asked.count, asked[start] == 0x20 || asked[start] == 0x09 || asked[start] == 0x2C {
                start += 1
            }
            var end = start
            while end < asked.count, asked[end] != 0x2C, asked[end] != 0x20, asked[end] != 0x09 { end += 1 }
            if end > start, end - start == chosen.count {
                var isSame = true
                for index in 0..<chosen.count where chosen[index] | 0x20 != asked[start + index] | 0x20 {
                    isSame = false
                }
                if isSame { return true }
            }
            start = end
        }
        return false
    }

    // MARK: WebSocket's keys

    /// Whether the request being read has more than one `Sec-WebSocket-Key` for a WebSocket (RFC 6455
    /// section 11.3.1): two readers could answer different ones.
    func hasSeveralKeys() -> Bool {
        let block = plain.value
        let chosen = Self.chosenProtocol(block.readable, requestHead.value.upgrade)
        guard block.span(chosen).equalsIgnoringCase("websocket") else { return false }
        var count = 0
        for index in 0..<requestHead.value.fieldCount
        where HTTP2Engine.isWebSocketKey(block, requestHead.value.fields[index]) {
            count += 1
        }
        return count > 1
    }

    /// Where `Sec-WebSocket-Key` stands in a request of our own; empty when it has none.
    func webSocketKey(_ head: Block) -> Range<Int> {
        guard
            case .complete = RequestParser.read(
                written: head.readable, limits: Self.ownRequestLimits, into: &framedRequest.value)
        else { return 0..<0 }
        for index in 0..<framedRequest.value.fieldCount {
            let slice = framedRequest.value.fields[index]
            if HTTP2Engine.isWebSocketKey(head, slice) { return slice.value }
        }
        return 0..<0
    }

    /// Whether an upstream of HTTP/1.1 answers the key as a WebSocket must (RFC 6455 section 4.1). Callers of
    /// HTTP/1.1 look for themselves; for those of HTTP/2 the gateway has made the key, and nobody else can.
    private func provesAgreement(
        _ exchange: Slot<Exchange>, _ connection: Slot<UpstreamConnection>, _ slot: Slot<Downstream>,
        _ block: Block
    ) -> Bool {
        guard slot.value.kind == .stream, connection.value.kind == .http1,
            block.span(responseHead.value.upgrade).equalsIgnoringCase("websocket")
        else { return true }
        let head = exchange.value.head
        let key = head.span(webSocketKey(head))
        var scratch = pool.take(atLeast: WebSocketAccept.bytes)
        defer { pool.give(&scratch) }
        var count = 0
        var isRight = false
        for index in 0..<responseHead.value.fieldCount {
            let slice = responseHead.value.fields[index]
            guard HTTP2Engine.isWebSocketAccept(block, slice) else { continue }
            count += 1
            scratch.clear()
            isRight = WebSocketAccept.isProof(block.span(slice.value), of: key, scratch: &scratch)
        }
        return count == 1 && isRight
    }

    // MARK: Bytes

    /// Passes on what the caller has sent into its tunnel.
    ///
    /// - Returns: whether there may be more to do at once.
    func takeTunnel(_ slot: Slot<Downstream>) -> Bool {
        guard let exchange = exchanges.lookup(slot.value.exchange), !exchange.value.isDead else {
            preconditionFailure("a tunnel belongs to an exchange")
        }
        guard let connection = writableUpstream(exchange) else { return false }
        guard !plain.value.isEmpty else {
            if slot.value.inputEnded || slot.value.stream.requestHasEnded { endTunnelInput(connection) }
            return false
        }
        claimUpstream(connection)
        if connection.value.isDead || exchange.value.isDead { return !slot.value.isDead }
        let block = plain.value
        let count = min(block.count, toUpstream.value.freeCount)
        toUpstream.value.append(block.span(0..<count))
        if exchange.value.isWebSocket { exchange.value.callerFrames.follow(block.span(0..<count)) }
        plain.value.consume(count)
        exchange.value.requestBodyBytes += Int64(count)
        reopenWindow(slot, Int64(count))
        if !connection.value.isPaused { awaitUpstream(connection, exchange) }
        if plain.value.isEmpty {
            guard slot.value.inputEnded || slot.value.stream.requestHasEnded else { return false }
        }
        flushUpstream()
        return !slot.value.isDead && !exchange.value.isDead
    }

    /// The caller has ended its side, and all it sent has been passed on: the upstream learns of it, and may
    /// still finish its own.
    private func endTunnelInput(_ connection: Slot<UpstreamConnection>) {
        guard !connection.value.hasEndedOutput else { return }
        connection.value.hasEndedOutput = true
        if connection.value.hasUnsentOutput { flushUpstream() }
        if !connection.value.isDead { endUpstreamOutput(connection) }
    }

    // MARK: Ends

    /// Whether one side of a WebSocket has said that it closes: however the connections end from there on,
    /// nothing is missing.
    func isClosing(_ exchange: Slot<Exchange>) -> Bool {
        exchange.value.upstreamFrames.hasClosed || exchange.value.callerFrames.hasClosed
    }

    /// Whether a connection's call is a WebSocket that is closing.
    func isClosing(_ connection: Slot<UpstreamConnection>) -> Bool {
        guard let exchange = exchanges.lookup(connection.value.exchange) else { return false }
        return isClosing(exchange)
    }

    /// The upstream has ended a tunnel that it did not reset. A WebSocket ends with a closing frame, or
    /// because the caller has ended its side; other protocols may have meant it.
    func noteTunnelEnd(_ exchange: Slot<Exchange>, _ connection: Slot<UpstreamConnection>) {
        guard exchange.value.isWebSocket, !isClosing(exchange), !connection.value.hasEndedOutput else {
            return
        }
        exchange.value.reason = .tunnelCut
    }

    // MARK: Silence

    /// An answer has begun: from here on another silence is allowed where the route says so, or where its
    /// kind is to be silent at times.
    func allowSilence(_ exchange: Slot<Exchange>) {
        let chosen = exchange.value.idleTimeoutMicroseconds
        if chosen > 0 {
            exchange.value.responseTimeoutMicroseconds = chosen
        } else if exchange.value.isTunnel || exchange.value.isGRPC || responseHead.value.isEventStream {
            exchange.value.responseTimeoutMicroseconds = max(
                exchange.value.responseTimeoutMicroseconds, HardLimits.streamIdleMicroseconds)
        }
    }

    /// A gRPC call is over when its caller says so, or may be silent like other streams.
    func noteDeadline(_ exchange: Slot<Exchange>) {
        let block = plain.value
        for index in 0..<requestHead.value.fieldCount {
            let field = requestHead.value.fields[index]
            guard field.name.count == 12, block.span(field.name).equalsIgnoringCase("grpc-timeout"),
                let timeout = GRPCTimeout.microseconds(block.span(field.value))
            else { continue }
            exchange.value.deadlineMicroseconds = state.value.nowMicroseconds &+ timeout
            exchange.value.responseTimeoutMicroseconds = max(1, timeout)
            return
        }
        exchange.value.responseTimeoutMicroseconds = max(
            exchange.value.responseTimeoutMicroseconds, HardLimits.streamIdleMicroseconds)
    }

    /// Waits for the upstream's next byte as long as the call allows. While it is not read, the time is its
    /// caller's.
    func awaitUpstream(_ connection: Slot<UpstreamConnection>, _ exchange: Slot<Exchange>) {
        if connection.value.isPaused { return }
        var wait = exchange.value.responseTimeoutMicroseconds
        if exchange.value.deadlineMicroseconds > 0 {
            wait = min(wait, max(0, exchange.value.deadlineMicroseconds &- state.value.nowMicroseconds))
        }
        setTimer(connection, after: wait)
    }
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Requests").
enum GRPCTimeout {
    static func microseconds(_ value: Span<UInt8>) -> Int64? {
        guard value.count >= 2, value.count <= 9 else { return nil }
        var number: Int64 = 0
        for index in 0..<value.count - 1 {
            guard value[index] &- 48 < 10 else { return nil }
            number = number * 10 + Int64(value[index] - 48)
        }
        switch value[value.count - 1] {
        case 0x48: return number * 3_600_000_000
        case 0x4D: return number * 60_000_000
        case 0x53: return number * 1_000_000
        case 0x6D: return number * 1_000
        case 0x75: return number
        case 0x6E: return number / 1_000
        default: return nil
        }
    }
}
