import HTTPWire
import Keys
import Limits
import Reactor

// The life of one call behind the gate: admitted, given a connection, its body passed on, its answer passed
// back, finished or failed. Every way out goes through `endExchange`.

extension Worker {
    /// Lets a call through to its upstream.
    func admit(
        _ slot: Slot<Downstream>, headCount: Int, route: Int, key: Slot<ActiveKey>?,
        decision: Decision? = nil, decisionMicroseconds: Int64 = 0
    ) -> Bool {
        guard let exchange = makeExchange(slot, headCount: headCount, route: route, key) else {
            return refuse(slot, .overloaded, headCount: headCount, route: route, key: key)
        }
        if let decision {
            exchange.value.hasDecision = true
            exchange.value.decision = decision
            exchange.value.decisionMicroseconds = decisionMicroseconds
        }
        startUpstream(exchange)
        return !slot.value.isDead
    }

    /// Turns the head being read into an exchange, with its request serialised.
    func makeExchange(
        _ slot: Slot<Downstream>, headCount: Int, route: Int, _ key: Slot<ActiveKey>?
    ) -> Slot<Exchange>? {
        guard let exchange = exchanges.allocate(like: blankExchange) else { return nil }
        exchange.value.begin(
            downstream: slot.reference, route: rows.routes[route], key: Int32(key?.index ?? -1),
            tier: key?.value.tier ?? -1, head: requestHead.value,
            startMicroseconds: slot.value.arrivedMicroseconds)
        guard serialiseRequest(slot, exchange, headCount: headCount, route, key) else {
            pool.give(&exchange.value.head)
            exchanges.free(exchange)
            return nil
        }
        if exchange.value.isGRPC { noteDeadline(exchange) }
        key?.value.holders += 1
        slot.value.exchange = exchange.reference
        slot.value.requests += 1
        slot.value.phaseBytes = 0
        slot.value.phaseStartMicroseconds = 0
        plain.value.consume(headCount)
        if slot.value.closesAfterAnswer || state.value.isDraining { exchange.value.keepsAlive = false }
        if exchange.value.requestIsSent {
            slot.value.request = .complete
        } else {
            slot.value.request = .body
            slot.value.phaseStartMicroseconds = state.value.nowMicroseconds
        }
        return exchange
    }

    /// Passes body bytes of the plaintext scratch on to the upstream of this step.
    func forwardBody(_ exchange: Slot<Exchange>, to connection: Slot<UpstreamConnection>) {
        claimUpstream(connection)
        // What had to be sent first may have failed.
        if connection.value.isDead || exchange.value.isDead { return }
        let start = toUpstream.value.count
        if exchange.value.requestFraming == .chunked {
            forwardChunks(exchange)
        } else {
            forwardCounted(exchange)
        }
        if connection.value.kind == .stream { keepBody(exchange, from: start) }
    }

    private func forwardCounted(_ exchange: Slot<Exchange>) {
        let room = toUpstream.value.freeCount
        let n = min(Int(min(exchange.value.requestRemaining, Int64(plain.value.count))), room)
        let block = plain.value
        toUpstream.value.append(block.span(0..<n))
        plain.value.consume(n)
        exchange.value.requestRemaining -= Int64(n)
        exchange.value.requestBodyBytes += Int64(n)
        if exchange.value.requestRemaining == 0 { requestIsSent(exchange) }
    }

    /// Keeps what has been written to the scratch block, as long as it is little.
    private func keepBody(_ exchange: Slot<Exchange>, from start: Int) {
        let written = toUpstream.value
        guard !exchange.value.isDead, exchange.value.phase == .awaitingResponse,
            !exchange.value.hasLostBody, written.count > start
        else { return }
        let count = written.count - start
        guard exchange.value.keptBody.count + count <= HardLimits.keptBodyBytes else {
            exchange.value.hasLostBody = true
            pool.give(&exchange.value.keptBody)
            return
        }
        pool.ensureRoom(for: count, in: &exchange.value.keptBody)
        exchange.value.keptBody.append(written.span(start..<written.count))
    }

    private func forwardChunks(_ exchange: Slot<Exchange>) {
        let block = plain.value
        var offset = 0
        // A chunk's frame is at most 20 bytes; a trailer line is bounded by the decoder.
        while toUpstream.value.freeCount > block.count - offset + ChunkDecoder.trailerBytesMax {
            switch exchange.value.requestChunks.next(block.readable, &offset) {
            case .data(let range):
                exchange.value.requestBodyBytes += Int64(range.count)
                guard staysWithinLimit(exchange, offset) else { return }
                Self.appendChunk(block.span(range), to: &toUpstream.value)
            case .trailer(let field):
                if exchange.value.dropsRequestTrailers { continue }
                if !exchange.value.hasRequestTrailers { toUpstream.value.append("0\r\n") }
                exchange.value.hasRequestTrailers = true
                Self.appendTrailer(block, field, to: &toUpstream.value)
            case .end:
                toUpstream.value.append(exchange.value.hasRequestTrailers ? "\r\n" : "0\r\n\r\n")
                plain.value.consume(offset)
                requestIsSent(exchange)
                return
            case .needMore:
                if staysWithinLimit(exchange, offset) { plain.value.consume(offset) }
                return
            case .invalid:
                plain.value.clear()
                failExchange(exchange, .badRequest)
                return
            }
        }
        plain.value.consume(offset)
    }

    /// Refuses a body that is too large as soon as the size of a chunk says so.
    private func staysWithinLimit(_ exchange: Slot<Exchange>, _ offset: Int) -> Bool {
        let known = exchange.value.requestBodyBytes &+ exchange.value.requestChunks.announced
        if known <= exchange.value.requestBodyLimit { return true }
        plain.value.consume(offset)
        failExchange(exchange, .tooLarge)
        return false
    }

    static func appendChunk(_ bytes: Span<UInt8>, to block: inout Block) {
        var writer = ByteWriter(block)
        writer.append(hexadecimal: UInt64(bytes.count))
        writer.append("\r\n")
        writer.append(bytes)
        writer.append("\r\n")
        block.commit(writer)
    }

    static func appendTrailer(_ source: Block, _ field: FieldSlice, to block: inout Block) {
        block.append(source.span(field.name))
        block.append(": ")
        block.append(source.span(field.value))
        block.append("\r\n")
    }

    private func requestIsSent(_ exchange: Slot<Exchange>) {
        exchange.value.requestIsSent = true
        if let connection = upstreamConnections.lookup(exchange.value.upstreamConnection) {
            awaitUpstream(connection, exchange)
        }
    }

    // MARK: Ends

    /// The answer has gone out in full.
    func completeExchange(_ exchange: Slot<Exchange>) {
        guard let slot = downstreams.lookup(exchange.value.downstream) else {
            preconditionFailure("an exchange without its caller has been ended")
        }
        let keepsAlive = exchange.value.keepsAlive && exchange.value.requestIsSent
        endExchange(exchange)
        if slot.value.isDead { return }
        // An answer before the end of the request: the rest of it cannot be told from the next one.
        if !keepsAlive { slot.value.closesAfterAnswer = true }
        awaitNextRequest(slot)
        if slot.value.isFinishing { return }
        if !slot.value.input.isEmpty || slot.value.interest.rawValue == 0 { resumeLater(slot) }
        updateInterest(slot)
    }

    /// Answers a call with a refusal of our own, or cuts it when its answer has begun.
    func failExchange(_ exchange: Slot<Exchange>, _ reason: Reason, retryAfter: Int64 = 0) {
        guard let slot = downstreams.lookup(exchange.value.downstream), !slot.value.isDead else {
            endExchange(exchange)
            return
        }
        exchange.value.reason = reason
        dropUpstream(of: exchange)
        if exchange.value.phase == .streaming {
            // Half an answer must not look like a whole one: no goodbye, no final chunk.
            finishStep()
            if !slot.value.isDead { abandon(slot, reason) }
            return
        }
        let text = RefusalText(reason)
        var context = RefusalContext(text)
        context.method = exchange.value.method
        context.minorVersion = Int(exchange.value.minorVersion)
        context.isGRPC = exchange.value.isGRPC
        if text.status == 401 { context.challenge = Self.challengeInvalid }
        context.retryAfter = text.status == 503 ? max(1, retryAfter) : retryAfter
        if exchange.value.hasDecision {
            context.hasDecision = true
            context.decision = exchange.value.decision
            context.decisionMicroseconds = exchange.value.decisionMicroseconds
        }
        let canKeep =
            exchange.value.keepsAlive && exchange.value.requestIsSent && reason != .badRequest
            && reason != .requestTimeout
        context.closes = !canKeep
        exchange.value.keepsAlive = canKeep
        exchange.value.status = Int32(text.status)
        let head = exchange.value.head
        writeRefusal(
            slot, context, requestID: head.span(exchange.value.requestID),
            key: keys.occupant(at: max(0, Int(exchange.value.key))))
        completeExchange(exchange)
    }

    /// The caller's connection is closed, by itself or by us; `abandon` is at work.
    func callerIsGone(_ exchange: Slot<Exchange>, _ reason: Reason) {
        if exchange.value.reason == .none { exchange.value.reason = reason == .none ? .callerGone : reason }
        if exchange.value.status == 0 {
            exchange.value.status = exchange.value.reason == .draining ? 503 : 499
        }
        dropUpstream(of: exchange)
        endExchange(exchange)
    }

    /// Counts, logs and frees.
    func endExchange(_ exchange: Slot<Exchange>) {
        guard !exchange.value.isDead else { return }
        exchange.value.isDead = true
        let duration = state.value.nowMicroseconds &- exchange.value.startMicroseconds
        metrics.countRequest(
            route: Int(exchange.value.series), method: Int(exchange.value.method.rawValue),
            status: Int(exchange.value.status), tier: Int(exchange.value.tier),
            durationMicroseconds: duration)
        let key = keys.occupant(at: max(0, Int(exchange.value.key)))
        if let slot = downstreams.lookup(exchange.value.downstream) {
            record(exchange, slot, exchange.value.key >= 0 ? key : nil, durationMicroseconds: duration)
            slot.value.exchange = .none
        }
        if exchange.value.key >= 0 { releaseKey(at: Int(exchange.value.key)) }
        pool.give(&exchange.value.head)
        pool.give(&exchange.value.keptBody)
        state.value.deadExchanges.append(exchange.reference)
    }
}
