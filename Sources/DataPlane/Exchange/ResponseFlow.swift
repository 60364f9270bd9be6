import HTTP2
import HTTPWire
import Reactor
import TLS

// From the upstream's bytes to the caller's: heads are parsed and written anew, bodies pass through in the
// framing that the caller understands.

extension Worker {
    /// Takes what `answer` holds for an exchange. Returns false when the connection has been dealt with.
    func readResponse(_ exchange: Slot<Exchange>, _ connection: Slot<UpstreamConnection>) {
        guard let slot = downstreams.lookup(exchange.value.downstream), !slot.value.isDead else {
            dropUpstream(of: exchange)
            endExchange(exchange)
            return
        }
        claimOutput(slot)
        // What had to be sent first may have failed.
        if exchange.value.isDead { return }
        while exchange.value.phase != .streaming {
            guard !answer.value.isEmpty else { return }
            let block = answer.value
            switch ResponseParser.parse(
                block.readable, method: exchange.value.method, limits: Self.responseLimits,
                into: &responseHead.value)
            {
            case .incomplete:
                keepPartialHead(connection)
                return
            case .refused:
                upstreamFailed(exchange, connection, .upstreamNonsense)
                return
            case .complete(let count):
                guard takeResponseHead(exchange, connection, slot, block, count) else { return }
                answer.value.consume(count)
            }
        }
        passBody(exchange, connection, slot)
    }

    static let responseLimits = HeadLimits(headBytes: 65_536, fields: 256, targetBytes: 0)

    private func keepPartialHead(_ connection: Slot<UpstreamConnection>) {
        connection.value.input = pool.take(atLeast: max(4_096, answer.value.count))
        _ = connection.value.input.moveContents(from: &answer.value)
    }

    /// - Returns: whether to go on reading.
    private func takeResponseHead(
        _ exchange: Slot<Exchange>, _ connection: Slot<UpstreamConnection>, _ slot: Slot<Downstream>,
        _ block: Block, _ headCount: Int
    ) -> Bool {
        let status = responseHead.value.status
        if status == 101 { return openTunnel(exchange, connection, block) }
        if status < 200 {
            exchange.value.interimAnswers += 1
            guard exchange.value.interimAnswers <= HardLimits.interimAnswers else {
                upstreamFailed(exchange, connection, .upstreamNonsense)
                return false
            }
            // HTTP/1.0 callers know no interim answers (RFC 9110 section 15.2).
            if exchange.value.minorVersion == 1, !serialiseInterim(block) {
                upstreamFailed(exchange, connection, .upstreamNonsense)
                return false
            }
            // A caller that waits for its upstream to want the body has its time from here on.
            if status == 100, slot.value.request == .body { timeBody(slot) }
            if status == 100 { exchange.value.expectsContinue = false }
            return true
        }
        // A stream of HTTP/2 that asked for a tunnel would take any success for one (RFC 8441 section 5).
        let isStream = slot.value.kind == .stream
        if status < 300, isStream, slot.value.stream.requestBody == .tunnel {
            // Its endpoint may answer an ordinary page so, of which the caller has asked something else.
            noteSuccess(connection)
            dropUpstream(of: exchange)
            failExchange(exchange, .upstreamNonsense)
            return false
        }
        // Known to be nonsense before the caller has been told of an answer.
        if case .chunked = responseHead.value.framing,
            ChunkDecoder.problem(in: block.readable, from: headCount, isOfAnswer: true) != nil
        {
            upstreamFailed(exchange, connection, .upstreamNonsense)
            return false
        }
        exchange.value.status = Int32(status)
        exchange.value.upstreamMicroseconds =
            state.value.nowMicroseconds &- exchange.value.upstreamStartMicroseconds
        noteSuccess(connection)
        if !exchange.value.requestIsSent { exchange.value.keepsAlive = false }
        guard isStream ? submitResponse(exchange, block, to: slot) : serialiseResponse(exchange, block) else {
            if exchange.value.isDead { return false }
            exchange.value.status = 0
            upstreamFailed(exchange, connection, .upstreamNonsense)
            return false
        }
        exchange.value.phase = .streaming
        pool.give(&exchange.value.keptBody)
        allowSilence(exchange)
        exchange.value.responseFraming = responseHead.value.framing
        exchange.value.dropsResponseTrailers = responseHead.value.hasNominations
        exchange.value.isEventStream = responseHead.value.isEventStream
        if case .length(let count) = responseHead.value.framing { exchange.value.responseRemaining = count }
        connection.value.mayBeKept = responseHead.value.keepAlive
        return true
    }

    private func passBody(
        _ exchange: Slot<Exchange>, _ connection: Slot<UpstreamConnection>, _ slot: Slot<Downstream>
    ) {
        switch exchange.value.responseFraming {
        case .none:
            responseIsComplete(exchange, connection)
        case .length:
            let n = Int(min(exchange.value.responseRemaining, Int64(answer.value.count)))
            emit(slot, answer.value, 0..<n)
            answer.value.consume(n)
            exchange.value.responseRemaining -= Int64(n)
            exchange.value.responseBodyBytes += Int64(n)
            if exchange.value.responseRemaining == 0 { responseIsComplete(exchange, connection) }
        case .chunked:
            passChunks(exchange, connection, slot)
        case .untilClose:
            let n = answer.value.count
            if n > 0 {
                if exchange.value.isWebSocket { exchange.value.upstreamFrames.follow(answer.value.readable) }
                if exchange.value.sendsChunks {
                    let block = answer.value
                    Self.appendChunk(block.readable, to: &toDownstream.value)
                } else {
                    emit(slot, answer.value, 0..<n)
                }
                answer.value.clear()
                exchange.value.responseBodyBytes += Int64(n)
            }
            if connection.value.inputEnded {
                if exchange.value.sendsChunks { toDownstream.value.append("0\r\n\r\n") }
                if exchange.value.isTunnel { noteTunnelEnd(exchange, connection) }
                responseIsComplete(exchange, connection)
            }
        }
    }

    private func passChunks(
        _ exchange: Slot<Exchange>, _ connection: Slot<UpstreamConnection>, _ slot: Slot<Downstream>
    ) {
        let block = answer.value
        let sendsChunks = exchange.value.sendsChunks
        var offset = 0
        while true {
            switch exchange.value.responseChunks.next(block.readable, &offset) {
            case .data(let range):
                exchange.value.responseBodyBytes += Int64(range.count)
                if sendsChunks {
                    Self.appendChunk(block.span(range), to: &toDownstream.value)
                } else {
                    toDownstream.value.append(block.span(range))
                }
                // Tiny chunks grow by their frames: send before the scratch block overflows.
                if toDownstream.value.freeCount < block.count - offset + ChunkDecoder.trailerBytesMax + 64 {
                    emitDirectly(slot, .none, 0..<0)
                    if slot.value.isDead { return }
                }
            case .trailer(let field):
                guard sendsChunks, !exchange.value.dropsResponseTrailers else { continue }
                if !exchange.value.hasResponseTrailers { toDownstream.value.append("0\r\n") }
                exchange.value.hasResponseTrailers = true
                Self.appendTrailer(block, field, to: &toDownstream.value)
            case .end:
                if sendsChunks {
                    toDownstream.value.append(exchange.value.hasResponseTrailers ? "\r\n" : "0\r\n\r\n")
                }
                answer.value.consume(offset)
                responseIsComplete(exchange, connection)
                return
            case .needMore:
                answer.value.consume(offset)
                if !answer.value.isEmpty { keepPartialHead(connection) }
                return
            case .invalid:
                answer.value.clear()
                upstreamFailed(exchange, connection, .upstreamNonsense)
                return
            }
        }
    }

    /// Passes body bytes on: small ones behind the head in one record, large ones without a copy.
    private func emit(_ slot: Slot<Downstream>, _ block: Block, _ range: Range<Int>) {
        let isStream = slot.value.kind == .stream
        if isStream, toDownstream.value.count == downstreamParts.value.start {
            queueAnswer(slot, block, range)
        } else if isStream || range.count >= 16_384 && slot.value.session.isOpen {
            emitDirectly(slot, block, range)
        } else {
            toDownstream.value.append(block.span(range))
        }
    }

    /// The last byte of an answer has come.
    private func responseIsComplete(_ exchange: Slot<Exchange>, _ connection: Slot<UpstreamConnection>) {
        guard !exchange.value.isDead else { return }
        metrics.upstreamDurations.observe(
            histogramAt: Int(exchange.value.upstream) * LatencyBuckets.cells,
            microseconds: state.value.nowMicroseconds &- exchange.value.upstreamStartMicroseconds)
        // An upstream that was asked whether it wants the body and has not said so may leave it unread.
        let mayKeep =
            connection.value.kind == .http1 && connection.value.mayBeKept && exchange.value.requestIsSent
            && !exchange.value.expectsContinue
            && answer.value.isEmpty
            && connection.value.output.isEmpty && !connection.value.inputEnded
            && !connection.value.outputIsBroken
        if connection.value.hasUnsentOutput { flushUpstream() }
        exchange.value.upstreamConnection = .none
        connection.value.exchange = .none
        if mayKeep, !connection.value.isDead { park(connection) } else { closeUpstream(connection) }
        completeExchange(exchange)
    }
}
