import Configuration
import HTTP2
import HTTPWire
import Reactor

// A stream of HTTP/2, kept as a caller's connection that carries one request. Its request stands in `input`
// as HTTP/1.1, chunked where the caller gave no length; its answer is written as HTTP/1.1 too, and taken
// apart here into frames. So gate, exchange and both parsers are the same for both protocols.

struct StreamState {
    /// How the answer goes on.
    enum Answer: UInt8 {
        case head
        /// A body whose remaining length is known.
        case counted
        case chunks
        /// A tunnel: bytes until its upstream ends it.
        case raw
        /// Everything is in `output`.
        case ended
    }

    var connection = SlotReference.none
    var number: Int32 = 0
    var next = SlotReference.none
    var previous = SlotReference.none
    var requestBody = HeaderBlock.Body.none
    /// Bytes of the announced body that have not come yet; -1 when none were announced.
    var requestRemaining: Int64 = -1
    /// Whether the caller has ended its side.
    var requestHasEnded = false
    /// Whether the request has turned out to be malformed: nothing more of it is taken.
    var isRejected = false
    var isHead = false
    var isHeadTooLarge = false
    /// Whether its head said so, however much else is wrong with it.
    var isGRPC = false
    var answer = Answer.head
    var answerRemaining: Int64 = 0
    var answerChunks = ChunkDecoder(isOfAnswer: true)
    /// Field lines that follow the body.
    var trailers = Block.none
    /// Whether our side has been ended by a frame that is written.
    var hasEnded = false
    /// Whether the stream is over for the engine.
    var isClosed = false
    /// Whether the engine waits to hear that there is more to send.
    var isDeferred = false
    /// Whether it already waits in `streamsSent`.
    var isNoted = false
    /// Whether its answer is out, and only the caller's side is still open.
    var isLingering = false
}

extension Worker {
    // MARK: The request

    /// A caller has sent the head of a request. Called by the engine: nothing may be sent here.
    func openStream(_ connection: Slot<Downstream>, _ number: Int32, endsStream: Bool) {
        let session = connection.value.multiplex.session
        if case .malformed = http2.block.value.facts.problem {
            refuseStream(session, number, .protocolError, .streamsMalformed)
            return
        }
        guard state.value.openStreams < connectionsMax else {
            refuseStream(session, number, .refusedStream, .streamsRefused)
            return
        }
        guard let slot = downstreams.allocate(like: blankStream) else {
            refuseStream(session, number, .refusedStream, .streamsRefused)
            return
        }
        slot.value.peer = connection.value.peer
        slot.value.session = connection.value.session
        slot.value.stream.connection = connection.reference
        slot.value.stream.number = number
        slot.value.stream.requestHasEnded = endsStream
        slot.value.stream.isGRPC = http2.block.value.facts.isGRPC
        if case .tooLarge = http2.block.value.facts.problem { slot.value.stream.isHeadTooLarge = true }
        guard slot.value.stream.isHeadTooLarge || writeHead(slot, endsStream: endsStream) else {
            downstreams.free(slot)
            refuseStream(session, number, .protocolError, .streamsMalformed)
            return
        }
        metrics.add(.streamsOpened)
        state.value.openStreams += 1
        link(slot, to: connection)
        session.setTag(tag(of: slot), ofStream: number)
        streamCountChanged(connection)
        resumeLater(slot)
    }

    private func refuseStream(
        _ session: HTTP2Session, _ number: Int32, _ code: HTTP2Error, _ counter: WorkerMetrics.Scalar
    ) {
        metrics.add(counter)
        session.reset(number, code)
    }

    private func writeHead(_ slot: Slot<Downstream>, endsStream: Bool) -> Bool {
        slot.value.input = pool.take(atLeast: http2.block.value.textBytesMax)
        var writer = ByteWriter(slot.value.input)
        let nonce = (state.value.random.next(), state.value.random.next())
        guard let body = http2.block.value.writeRequest(into: &writer, endsStream: endsStream, nonce: nonce)
        else {
            pool.give(&slot.value.input)
            return false
        }
        slot.value.input.commit(writer)
        slot.value.stream.requestBody = body
        slot.value.stream.requestRemaining = http2.block.value.facts.contentLength
        slot.value.stream.isHead = http2.block.value.isHead
        return true
    }

    /// Body bytes have arrived: at most a window of them wait here.
    func takeBody(_ slot: Slot<Downstream>, _ bytes: Span<UInt8>) {
        guard !bytes.isEmpty else { return }
        guard countBody(slot, bytes.count) else {
            reopenConnection(of: slot, bytes.count)
            return
        }
        guard !slot.value.isFinishing else {
            reopenConnection(of: slot, bytes.count)
            dropBody(slot, bytes.count)
            return
        }
        // The frame of a chunk is at most 20 bytes. One byte to a frame makes a window of 64 KiB six times as
        // long, which the largest block still holds.
        pool.ensureRoom(for: bytes.count + 32, in: &slot.value.input)
        if slot.value.stream.requestBody == .chunked {
            Self.appendChunk(bytes, to: &slot.value.input)
        } else {
            slot.value.input.append(bytes)
        }
        resumeLater(slot)
    }

    /// Holds a body against its announced length, which must be met to the byte (RFC 9113 section 8.1.1).
    /// False when it is longer: nothing of what is too much is taken, and the stream is reset.
    private func countBody(_ slot: Slot<Downstream>, _ count: Int) -> Bool {
        if slot.value.stream.isRejected { return false }
        let remaining = slot.value.stream.requestRemaining
        guard remaining >= 0 else { return true }
        guard Int64(count) <= remaining else {
            rejectStream(slot)
            return false
        }
        slot.value.stream.requestRemaining = remaining - Int64(count)
        return true
    }

    /// Resets a stream whose request has turned out to be malformed.
    private func rejectStream(_ slot: Slot<Downstream>) {
        slot.value.stream.isRejected = true
        metrics.add(.streamsMalformed)
        connectionSession(slot).reset(slot.value.stream.number, .protocolError)
    }

    /// The caller has ended its side of a stream.
    func takeEnd(_ slot: Slot<Downstream>) {
        guard !slot.value.stream.requestHasEnded, !slot.value.stream.isRejected else { return }
        guard slot.value.stream.requestRemaining <= 0 else {
            rejectStream(slot)
            return
        }
        slot.value.stream.requestHasEnded = true
        guard !slot.value.isFinishing else { return }
        if slot.value.stream.requestBody == .chunked {
            pool.ensureRoom(for: 32, in: &slot.value.input)
            slot.value.input.append("0\r\n\r\n")
        }
        resumeLater(slot)
    }

    /// Trailer fields end a request.
    func takeTrailers(_ slot: Slot<Downstream>, endsStream: Bool) {
        guard !slot.value.stream.requestHasEnded, !slot.value.stream.isRejected else { return }
        guard http2.block.value.isTrailerSection, endsStream else {
            rejectStream(slot)
            return
        }
        guard slot.value.stream.requestBody == .chunked else {
            takeEnd(slot)
            return
        }
        slot.value.stream.requestHasEnded = true
        guard !slot.value.isFinishing else { return }
        pool.ensureRoom(for: http2.block.value.textBytesMax + 32, in: &slot.value.input)
        slot.value.input.append("0\r\n")
        var writer = ByteWriter(slot.value.input)
        http2.block.value.writeTrailers(into: &writer)
        slot.value.input.commit(writer)
        resumeLater(slot)
    }

    /// Body bytes have been passed on: their window opens again.
    func reopenWindow(_ slot: Slot<Downstream>, _ count: Int64) {
        guard count > 0, slot.value.kind == .stream, !slot.value.isDead,
            let connection = downstreams.lookup(slot.value.stream.connection), !connection.value.isDead
        else { return }
        connection.value.multiplex.session.consumeStream(slot.value.stream.number, Int(count))
        reopenConnection(connection, Int(count))
        markForFrames(connection)
    }

    /// Opens the window of a connection again by bytes that were kept while memory was short and are no
    /// longer, or that may be kept after all.
    func reopenConnection(_ connection: Slot<Downstream>, _ count: Int) {
        let held = min(count, connection.value.multiplex.heldBytes)
        guard held > 0 else { return }
        connection.value.multiplex.heldBytes -= held
        connection.value.multiplex.session.consumeConnection(held)
    }

    /// The same for bytes of a stream that nobody takes any more.
    func reopenConnection(of slot: Slot<Downstream>, _ count: Int) {
        guard slot.value.kind == .stream, let connection = downstreams.lookup(slot.value.stream.connection)
        else { return }
        reopenConnection(connection, count)
    }

    func refuseHeadTooLarge(_ slot: Slot<Downstream>) {
        requestHead.value.reset()
        makeRequestID(slot, trusting: false)
        refuseMalformed(slot, .headTooLarge)
    }

    private func connectionSession(_ slot: Slot<Downstream>) -> HTTP2Session {
        downstreams.lookup(slot.value.stream.connection)?.value.multiplex.session ?? HTTP2Session()
    }

    // MARK: The answer

    /// Takes a part of the answer, written as HTTP/1.1, and gives it to the engine.
    func translateAnswer(_ slot: Slot<Downstream>, _ block: Block, _ range: Range<Int>) {
        guard !slot.value.isDead, let connection = downstreams.lookup(slot.value.stream.connection),
            !connection.value.isDead
        else { return }
        guard takeAnswer(slot, block, range, connection.value.multiplex.session) else { return }
        if slot.value.stream.isDeferred {
            slot.value.stream.isDeferred = false
            connection.value.multiplex.session.resume(slot.value.stream.number)
        }
        markForFrames(connection)
        afterOutput(slot)
    }

    /// Takes a part of the answer whose frames are sent with what follows: a part of this caller's is open.
    func queueAnswer(_ slot: Slot<Downstream>, _ block: Block, _ range: Range<Int>) {
        guard !slot.value.isDead else { return }
        _ = takeAnswer(slot, block, range, connectionSession(slot))
    }

    /// False when the stream has been ended, because this is no part of an answer.
    private func takeAnswer(
        _ slot: Slot<Downstream>, _ block: Block, _ range: Range<Int>, _ session: HTTP2Session
    ) -> Bool {
        if range.isEmpty { return true }
        let wasEmpty = slot.value.output.isEmpty
        metrics.add(.bytesToDownstream, UInt64(range.count))
        var start = range.lowerBound
        while start < range.upperBound, slot.value.stream.answer != .ended {
            guard let taken = translate(slot, block.part(start..<range.upperBound), session) else {
                abandonStream(slot, .upstreamNonsense, isClosed: false)
                return false
            }
            start += taken
        }
        if !slot.value.output.isEmpty {
            setTimer(slot, after: Int64(timeouts.body) * 1_000)
            if wasEmpty {
                slot.value.stallStartMicroseconds = state.value.nowMicroseconds
                slot.value.stallBytes = 0
            }
        }
        return true
    }

    /// What the engine knows a stream by.
    func tag(of slot: Slot<Downstream>) -> UInt64 { Token(.downstream, slot.reference).rawValue }

    /// Notes how the body of an answer will come from the exchange.
    func expectBody(_ slot: Slot<Downstream>, _ framing: ResponseFraming) -> StreamState.Answer {
        switch framing {
        case .none, .length(0): slot.value.stream.answer = .ended
        case .length(let count):
            slot.value.stream.answer = .counted
            slot.value.stream.answerRemaining = count
        case .chunked, .untilClose: slot.value.stream.answer = .chunks
        }
        return slot.value.stream.answer
    }

    /// Takes what comes next of an answer.
    ///
    /// - Returns: the bytes taken, or nil when they are no such part.
    private func translate(_ slot: Slot<Downstream>, _ text: Block, _ session: HTTP2Session) -> Int? {
        switch slot.value.stream.answer {
        case .head: return translateHead(slot, text, session)
        case .counted:
            let count = Int(min(slot.value.stream.answerRemaining, Int64(text.count)))
            queueBody(slot, text.span(0..<count))
            slot.value.stream.answerRemaining -= Int64(count)
            if slot.value.stream.answerRemaining == 0 { slot.value.stream.answer = .ended }
            return count
        case .chunks: return translateChunks(slot, text)
        case .raw, .ended:
            queueBody(slot, text.readable)
            return text.count
        }
    }

    private func translateHead(_ slot: Slot<Downstream>, _ text: Block, _ session: HTTP2Session) -> Int? {
        guard
            let count = ResponseParser.read(
                written: text.readable, method: slot.value.stream.isHead ? .head : .get,
                into: &framedHead.value)
        else { return nil }
        var status = framedHead.value.status
        var hasBody = expectBody(slot, framedHead.value.framing) != .ended
        if framedHead.value.framing == .untilClose { slot.value.stream.answer = .raw }
        if status == 101 {
            // RFC 8441 section 5: a tunnel over HTTP/2 opens with 200.
            status = 200
            slot.value.stream.answer = .raw
            hasBody = true
        } else if status < 200 {
            slot.value.stream.answer = .head
        }
        http2.submitResponse(
            session, stream: slot.value.stream.number, tag: tag(of: slot), text, framedHead, status: status,
            hasBody: hasBody)
        return count
    }

    private func translateChunks(_ slot: Slot<Downstream>, _ text: Block) -> Int? {
        var offset = 0
        while true {
            switch slot.value.stream.answerChunks.next(text.readable, &offset) {
            case .data(let range): queueBody(slot, text.span(range))
            case .trailer(let field):
                pool.ensureRoom(
                    for: field.name.count + field.value.count + 4, in: &slot.value.stream.trailers)
                Self.appendTrailer(text, field, to: &slot.value.stream.trailers)
            case .end:
                slot.value.stream.answer = .ended
                return offset
            case .needMore: return offset == text.count ? offset : nil
            case .invalid: return nil
            }
        }
    }

    private func queueBody(_ slot: Slot<Downstream>, _ bytes: Span<UInt8>) {
        guard !bytes.isEmpty else { return }
        pool.ensureRoom(for: bytes.count, in: &slot.value.output)
        slot.value.output.append(bytes)
    }

    // MARK: Ends

    /// Nothing more comes from the exchange. An answer that is not whole by now must not look so.
    func endAnswer(_ slot: Slot<Downstream>) {
        // Its last frame may wait for a window that never opens.
        slot.value.isFinishing = true
        setTimer(slot, after: Int64(timeouts.body) * 1_000)
        switch slot.value.stream.answer {
        case .ended: return
        case .raw:
            slot.value.stream.answer = .ended
            let session = connectionSession(slot)
            session.resume(slot.value.stream.number)
            if let connection = downstreams.lookup(slot.value.stream.connection) { markForFrames(connection) }
        case .head, .counted, .chunks: abandonStream(slot, .upstreamNonsense, isClosed: false)
        }
    }

    /// Goes on with the streams whose bytes have just gone into frames.
    func settleStreams() {
        var index = 0
        while index < state.value.streamsSent.count {
            let reference = state.value.streamsSent[index]
            index += 1
            guard let slot = downstreams.lookup(reference), !slot.value.isDead else { continue }
            slot.value.stream.isNoted = false
            if slot.value.stream.hasEnded {
                finishStream(slot)
            } else if slot.value.output.isEmpty {
                pool.give(&slot.value.output)
                rearmTimer(slot)
                if let exchange = exchanges.lookup(slot.value.exchange), !exchange.value.isDead {
                    resumeUpstreamReading(exchange)
                }
            }
        }
        state.value.streamsSent.removeAll(keepingCapacity: true)
    }

    /// The answer is out. A caller that still sends has a moment to end its request, which is checked to its
    /// end; then it is told to stop (RFC 9113 section 8.1).
    private func finishStream(_ slot: Slot<Downstream>) {
        guard !slot.value.stream.requestHasEnded, !slot.value.stream.isClosed else {
            abandonStream(slot, .none, isClosed: true)
            return
        }
        if let exchange = exchanges.lookup(slot.value.exchange), !exchange.value.isDead {
            callerIsGone(exchange, .none)
        }
        slot.value.stream.isLingering = true
        slot.value.isFinishing = true
        slot.value.discardRemaining = HardLimits.streamDrainBytes
        reopenConnection(of: slot, slot.value.input.count)
        pool.give(&slot.value.input)
        setTimer(slot, after: HardLimits.streamLingerMicroseconds)
    }

    /// Body bytes behind the answer: few are taken for the end of a request that was on its way.
    private func dropBody(_ slot: Slot<Downstream>, _ count: Int) {
        guard slot.value.stream.isLingering else { return }
        slot.value.discardRemaining -= Int64(count)
        if slot.value.discardRemaining < 0 { abandonStream(slot, .none, isClosed: false) }
    }

    /// Ends a stream now. An exchange that is under way ends with it.
    ///
    /// - Parameter isClosed: whether the engine knows already.
    func abandonStream(_ slot: Slot<Downstream>, _ reason: Reason, isClosed: Bool) {
        guard !slot.value.isDead else { return }
        slot.value.isDead = true
        if let exchange = exchanges.lookup(slot.value.exchange), !exchange.value.isDead {
            callerIsGone(exchange, reason)
        }
        cancelTimer(slot)
        reopenConnection(of: slot, slot.value.input.count)
        pool.give(&slot.value.input)
        pool.give(&slot.value.output)
        pool.give(&slot.value.stream.trailers)
        if downstreamParts.value.owner == slot.reference {
            toDownstream.value.truncate(to: downstreamParts.value.start)
            downstreamParts.value.abandonOpen()
        }
        if let connection = downstreams.lookup(slot.value.stream.connection) {
            if !isClosed {
                let code: HTTP2Error = reason == .callerGone ? .cancel : .internalError
                connection.value.multiplex.session.reset(
                    slot.value.stream.number, slot.value.stream.isLingering ? .none : code)
                markForFrames(connection)
            }
            unlink(slot, from: connection)
            if !connection.value.isDead { streamCountChanged(connection) }
        }
        state.value.deadDownstreams.append(slot.reference)
    }

    private func link(_ slot: Slot<Downstream>, to connection: Slot<Downstream>) {
        slot.value.stream.next = connection.value.multiplex.firstStream
        if let next = downstreams.lookup(slot.value.stream.next) {
            next.value.stream.previous = slot.reference
        }
        connection.value.multiplex.firstStream = slot.reference
        connection.value.multiplex.streamCount += 1
    }

    private func unlink(_ slot: Slot<Downstream>, from connection: Slot<Downstream>) {
        let next = slot.value.stream.next
        let previous = slot.value.stream.previous
        if let neighbour = downstreams.lookup(previous) {
            neighbour.value.stream.next = next
        } else {
            connection.value.multiplex.firstStream = next
        }
        if let neighbour = downstreams.lookup(next) { neighbour.value.stream.previous = previous }
        connection.value.multiplex.streamCount -= 1
    }
}
