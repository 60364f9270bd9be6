import Configuration
import HTTPWire
import Keys
import Reactor
import TLS

// Reads requests, one after the other, from the plaintext scratch: a head, then its body, then the next head
// once its answer is complete. What cannot go on yet is stashed.

extension Worker {
    /// Room for the longest answer of our own.
    private static let refusalRoom = 16_384

    func readRequests(_ slot: Slot<Downstream>) {
        reading: while !slot.value.isDead, !slot.value.isFinishing, slot.value.transport == .open {
            switch slot.value.request {
            case .head:
                guard !plain.value.isEmpty, slot.value.output.isEmpty else { break reading }
                // Pipelined requests that are all refused can fill the scratch block many times over.
                if toDownstream.value.freeCount < Self.refusalRoom {
                    finishStep()
                    continue
                }
                guard takeHead(slot) else { break reading }
            case .body:
                guard takeBody(slot) else { break reading }
            case .tunnel:
                guard takeTunnel(slot) else { break reading }
            case .discarding:
                guard discardBody(slot) else { break reading }
            case .awaitingKey, .complete:
                break reading
            }
        }
        if slot.value.isDead || slot.value.isFinishing || slot.value.transport != .open {
            reopenConnection(of: slot, plain.value.count)
            plain.value.clear()
            return
        }
        // Nothing more comes: what is left, if anything, is no request.
        if slot.value.inputEnded, slot.value.request == .head, slot.value.output.isEmpty {
            plain.value.clear()
            closeGracefully(slot)
            return
        }
        stash(slot)
    }

    /// - Returns: whether there may be more to do at once.
    private func takeHead(_ slot: Slot<Downstream>) -> Bool {
        // Empty lines before a request are none yet (RFC 9112 section 2.2): the connection stays idle.
        while slot.value.kind == .http1, plain.value.count >= 2, plain.value.readable[0] == 0x0D,
            plain.value.readable[1] == 0x0A
        {
            plain.value.consume(2)
            slot.value.emptyLines += 1
            guard slot.value.emptyLines <= HardLimits.emptyLines else {
                requestHead.value.reset()
                makeRequestID(slot, trusting: false)
                refuseMalformed(slot, 400, "too many empty lines before a request")
                return false
            }
        }
        guard !plain.value.isEmpty else { return false }
        let block = plain.value
        let result =
            slot.value.kind == .stream
            ? RequestParser.read(tabled: block.readable, limits: headLimits, into: &requestHead.value)
            : RequestParser.parse(block.readable, limits: headLimits, into: &requestHead.value)
        switch result {
        case .incomplete:
            // One timer for the whole head: a caller that sends a byte now and then gains nothing.
            if slot.value.phaseStartMicroseconds == 0 {
                slot.value.phaseStartMicroseconds = state.value.nowMicroseconds
                setTimer(slot, after: Int64(timeouts.head) * 1_000)
            }
            return false
        case .refused(let refusal):
            makeRequestID(slot, trusting: false)
            refuseMalformed(slot, refusal)
            return false
        case .complete(let count):
            slot.value.phaseStartMicroseconds = 0
            return begin(slot, headCount: count)
        }
    }

    /// Passes on as much of a body as there is.
    private func takeBody(_ slot: Slot<Downstream>) -> Bool {
        guard let exchange = exchanges.lookup(slot.value.exchange), !exchange.value.isDead else {
            preconditionFailure("a body belongs to an exchange")
        }
        guard let connection = writableUpstream(exchange) else { return false }
        let before = plain.value.count
        guard before > 0 else {
            if slot.value.inputEnded { abandon(slot, .callerGone) }
            return false
        }
        let forwarded = exchange.value.requestBodyBytes
        forwardBody(exchange, to: connection)
        reopenWindow(slot, exchange.value.requestBodyBytes &- forwarded)
        if slot.value.isDead || exchange.value.isDead { return !slot.value.isDead }
        let taken = before - plain.value.count
        slot.value.phaseBytes += Int64(taken)
        if exchange.value.requestIsSent {
            slot.value.request = .complete
            // What waits to be taken by the caller has its time too.
            if slot.value.output.isEmpty { cancelTimer(slot) }
            return false
        }
        if isTooSlow(slot) {
            failExchange(exchange, .requestTimeout)
            return !slot.value.isDead
        }
        if taken > 0 {
            setTimer(slot, after: bodyWait(slot))
            // An upstream that still takes a body is not late.
            awaitUpstream(connection, exchange)
        }
        if !plain.value.isEmpty, taken > 0 {
            // The scratch block was full: sent, it takes more.
            flushUpstream()
            return !slot.value.isDead
        }
        // Whoever has said goodbye sends no more of it.
        if slot.value.inputEnded { abandon(slot, .callerGone) }
        return false
    }

    /// Drops the body of a refused request, so that its connection can be kept.
    private func discardBody(_ slot: Slot<Downstream>) -> Bool {
        if slot.value.discardIsChunked {
            var offset = 0
            let block = plain.value
            scanning: while true {
                switch slot.value.discardChunks.next(block.readable, &offset) {
                case .data(let range): slot.value.discardRemaining -= Int64(range.count)
                case .trailer: continue
                case .end:
                    plain.value.consume(offset)
                    awaitNextRequest(slot)
                    return true
                case .needMore:
                    plain.value.consume(offset)
                    break scanning
                case .invalid:
                    closeGracefully(slot)
                    return false
                }
            }
            if slot.value.discardRemaining < 0 { closeGracefully(slot) }
            return false
        }
        let n = min(slot.value.discardRemaining, Int64(plain.value.count))
        plain.value.consume(Int(n))
        slot.value.discardRemaining -= n
        if slot.value.discardRemaining > 0 { return false }
        awaitNextRequest(slot)
        return true
    }

    /// The connection is between two requests.
    func awaitNextRequest(_ slot: Slot<Downstream>) {
        slot.value.request = .head
        slot.value.emptyLines = 0
        slot.value.resolvedKey = Downstream.unresolved
        slot.value.hasSeenLimits = false
        slot.value.phaseStartMicroseconds = 0
        slot.value.phaseBytes = 0
        if slot.value.closesAfterAnswer || slot.value.kind == .stream {
            slot.value.isFinishing = true
            claimOutput(slot)
            return
        }
        setTimer(slot, after: idleWaitMicroseconds)
    }

    /// How long a connection may wait for its next request. An answer from before the drain has promised that
    /// the connection stays: the next one ends it.
    var idleWaitMicroseconds: Int64 {
        let isClosing = state.value.isDraining && !state.value.hasListeners
        return isClosing ? HardLimits.drainIdleMicroseconds : Int64(timeouts.idle) * 1_000
    }

    /// Decides what the request identifier is: a trusted peer's own, or a new one.
    func makeRequestID(_ slot: Slot<Downstream>, trusting: Bool) {
        state.value.requestID.clear()
        if trusting, isTrusted(slot.value.peer) {
            let block = plain.value
            for index in 0..<requestHead.value.fieldCount {
                guard case .xRequestID = requestHead.value.fields[index].id else { continue }
                let range = requestHead.value.fields[index].value
                if isUsableID(block.span(range)) {
                    state.value.requestID.append(block.span(range))
                    return
                }
            }
        }
        var writer = ByteWriter(state.value.requestID)
        writer.append(hexadecimal: state.value.random.next(), minimumDigits: 16)
        writer.append(hexadecimal: state.value.random.next(), minimumDigits: 16)
        state.value.requestID.commit(writer)
    }

    /// Letters, digits and `-._~+/=:` only: an identifier goes into headers and logs.
    private func isUsableID(_ bytes: Span<UInt8>) -> Bool {
        guard bytes.count > 0, bytes.count <= HardLimits.requestIDBytes else { return false }
        for index in 0..<bytes.count {
            switch bytes[index] {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2B, 0x2D...0x2F, 0x3A, 0x3D, 0x5F, 0x7E: continue
            default: return false
            }
        }
        return true
    }

    /// Whether a peer is a proxy of ours, so that what it says of its caller is believed.
    func isTrusted(_ peer: SocketAddress) -> Bool {
        if !rows.hasTrustedProxies { return false }
        return plan.trustedProxies.contains { $0.contains(peer) }
    }
}
