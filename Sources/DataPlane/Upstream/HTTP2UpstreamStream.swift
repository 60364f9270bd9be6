import HTTP2
import HTTPWire
import Reactor
import TLS

// A stream to an endpoint, kept as a connection that carries one call. The request that the exchange writes
// as HTTP/1.1 is taken apart into frames here; the answer is put together as HTTP/1.1 in `input`, chunked
// where the endpoint gave no length, and read by the parser that reads every answer.

struct UpstreamStream {
    /// How the request goes on.
    enum Request: UInt8 {
        case head
        case counted
        case chunks
        /// A tunnel: bytes until the caller ends it.
        case raw
        /// Everything is in `output`.
        case ended
    }

    var connection = SlotReference.none
    var number: Int32 = 0
    var startMicroseconds: Int64 = 0
    var next = SlotReference.none
    var previous = SlotReference.none
    var request = Request.head
    var requestRemaining: Int64 = 0
    var requestChunks = ChunkDecoder()
    /// Since when `output` holds bytes.
    var queuedMicroseconds: Int64 = 0
    /// Field lines that follow the request's body.
    var trailers = Block.none
    var isHead = false
    var isTunnel = false
    /// Whether a tunnel has been cut, and not ended.
    var isCut = false
    /// Whether the final head of the answer has come.
    var hasAnswerHead = false
    var answersInChunks = false
    var answerHasEnded = false
    /// Whether the stream is over for the engine.
    var isClosed = false
    /// The endpoint has not looked at the request (RFC 9113 section 8.7).
    var isRefused = false
    /// Whether its end says nothing against its endpoint.
    var isBlameless = false
    var isQueued = false
}

extension Worker {
    // MARK: The request

    /// Gives a call a place on a connection; it begins now, or when the endpoint has said what it can.
    func addStream(to connection: Slot<UpstreamConnection>, for exchange: Slot<Exchange>) {
        var fresh = UpstreamConnection(
            descriptor: .none, endpoint: connection.value.endpoint,
            generation: connection.value.generation, phase: .connecting, interest: .none)
        fresh.kind = .stream
        fresh.stream.connection = connection.reference
        fresh.isReused = connection.value.isReused
        guard let stream = upstreamConnections.allocate(fresh) else {
            failExchange(exchange, .overloaded, retryAfter: 1)
            return
        }
        stream.value.exchange = exchange.reference
        exchange.value.upstreamConnection = stream.reference
        exchange.value.phase = .connecting
        endpoints[Int(connection.value.endpoint)].outstanding += 1
        link(stream, to: connection)
        if connection.value.multiplex.hasSettings { beginStream(stream) }
    }

    /// The call's head goes out.
    func beginStream(_ stream: Slot<UpstreamConnection>) {
        guard let exchange = exchanges.lookup(stream.value.exchange), !exchange.value.isDead else {
            closeUpstream(stream)
            return
        }
        if exchange.value.wantsUpgrade, !mayTunnel(stream, exchange) { return }
        stream.value.stream.startMicroseconds = state.value.nowMicroseconds
        endpoints[Int(stream.value.endpoint)].outstanding -= 1
        use(stream, for: exchange)
    }

    /// Takes a part of the request, written as HTTP/1.1, and gives it to the engine.
    func translateRequest(_ stream: Slot<UpstreamConnection>, _ block: Block, _ range: Range<Int>) {
        guard !stream.value.isDead, !stream.value.stream.isClosed,
            let connection = upstreamConnections.lookup(stream.value.stream.connection),
            !connection.value.isDead
        else { return }
        var rest = block
        rest.consume(range.lowerBound)
        rest.truncate(to: range.count)
        var isFine = true
        while isFine, !rest.isEmpty, stream.value.stream.request != .ended {
            switch stream.value.stream.request {
            case .head: isFine = translateHead(stream, &rest, connection)
            case .counted:
                let count = Int(min(stream.value.stream.requestRemaining, Int64(rest.count)))
                queueBody(stream, rest.span(0..<count))
                rest.consume(count)
                stream.value.stream.requestRemaining -= Int64(count)
                if stream.value.stream.requestRemaining == 0 { stream.value.stream.request = .ended }
            case .chunks: isFine = translateChunks(stream, &rest)
            case .raw:
                queueBody(stream, rest.readable)
                rest.clear()
            case .ended: break
            }
        }
        guard isFine else {
            upstreamBroke(stream, .upstreamNonsense)
            return
        }
        connection.value.multiplex.session.resume(stream.value.stream.number)
        markForFrames(connection)
    }

    private func translateHead(
        _ stream: Slot<UpstreamConnection>, _ rest: inout Block, _ connection: Slot<UpstreamConnection>
    ) -> Bool {
        guard
            case .complete(let count) = RequestParser.read(
                written: rest.readable, limits: Self.ownRequestLimits, into: &framedRequest.value)
        else { return false }
        var hasBody = true
        switch framedRequest.value.body {
        case .none:
            stream.value.stream.request = .ended
            hasBody = false
        case .length(let length):
            stream.value.stream.request = .counted
            stream.value.stream.requestRemaining = length
        case .chunked: stream.value.stream.request = .chunks
        }
        var protocolName = 0..<0
        if framedRequest.value.wantsUpgrade {
            protocolName = Self.chosenProtocol(rest.readable, framedRequest.value.upgrade)
            stream.value.stream.request = .raw
            stream.value.stream.isTunnel = true
            hasBody = true
        }
        stream.value.stream.isHead = framedRequest.value.method == .head
        let isSecure = connection.value.session.isOpen
        guard
            let number = http2.submitRequest(
                connection.value.multiplex.session, rest, framedRequest,
                scheme: isSecure ? "https" : "http", protocolName: protocolName,
                tag: Token(.upstream, stream.reference).rawValue, hasBody: hasBody)
        else { return false }
        connection.value.isReused = true
        stream.value.stream.number = number
        rest.consume(count)
        return true
    }

    /// Our own text: as large as callers' heads may be, and the gateway's fields.
    static let ownRequestLimits = HeadLimits(
        headBytes: 131_072, fields: RequestHead.fieldsHardMaximum, targetBytes: 131_072)

    private func translateChunks(_ stream: Slot<UpstreamConnection>, _ rest: inout Block) -> Bool {
        var offset = 0
        while true {
            switch stream.value.stream.requestChunks.next(rest.readable, &offset) {
            case .data(let range): queueBody(stream, rest.span(range))
            case .trailer(let field):
                pool.ensureRoom(
                    for: field.name.count + field.value.count + 4, in: &stream.value.stream.trailers)
                Self.appendTrailer(rest, field, to: &stream.value.stream.trailers)
            case .end:
                rest.consume(offset)
                stream.value.stream.request = .ended
                return true
            case .needMore:
                rest.consume(offset)
                return rest.isEmpty
            case .invalid: return false
            }
        }
    }

    private func queueBody(_ stream: Slot<UpstreamConnection>, _ bytes: Span<UInt8>) {
        guard !bytes.isEmpty else { return }
        if stream.value.output.isEmpty {
            stream.value.stream.queuedMicroseconds = state.value.nowMicroseconds
        }
        pool.ensureRoom(for: bytes.count, in: &stream.value.output)
        stream.value.output.append(bytes)
    }

    /// The caller's side of a tunnel has ended.
    func endRequestStream(_ stream: Slot<UpstreamConnection>) {
        stream.value.stream.request = .ended
        guard let connection = upstreamConnections.lookup(stream.value.stream.connection) else { return }
        connection.value.multiplex.session.resume(stream.value.stream.number)
        markForFrames(connection)
    }

    /// Goes on with the callers whose bytes have just gone into frames, all of them or some.
    func settleUpstreamStreams() {
        var index = 0
        while index < state.value.upstreamStreamsSent.count {
            let reference = state.value.upstreamStreamsSent[index]
            index += 1
            guard let stream = upstreamConnections.lookup(reference), !stream.value.isDead else { continue }
            let isAllSent = stream.value.output.isEmpty
            if isAllSent { pool.give(&stream.value.output) }
            guard let exchange = exchanges.lookup(stream.value.exchange), !exchange.value.isDead else {
                continue
            }
            if !stream.value.isPaused { awaitUpstream(stream, exchange) }
            guard isAllSent, let slot = downstreams.lookup(exchange.value.downstream) else { continue }
            // It waited for a window, or for the socket.
            if stream.value.stream.queuedMicroseconds < state.value.nowMicroseconds {
                resumeBody(exchange)
            } else {
                resumeLater(slot)
            }
        }
        state.value.upstreamStreamsSent.removeAll(keepingCapacity: true)
    }

    // MARK: The answer

    /// Field lines of an answer have come: an interim head, the final one, or trailers. Called by the engine:
    /// nothing may be sent here.
    func takeAnswerHead(_ stream: Slot<UpstreamConnection>, endsStream: Bool) {
        if stream.value.stream.hasAnswerHead {
            takeAnswerTrailers(stream)
            return
        }
        if stream.value.stream.isTunnel, http2.block.value.isSuccess {
            takeAgreement(stream, endsStream: endsStream)
            return
        }
        guard stream.value.input.count <= HardLimits.interimBytes else {
            // Interim heads without end, and no window bounds them.
            pool.ensureRoom(for: 8, in: &stream.value.input)
            stream.value.input.append("?\r\n\r\n")
            stream.value.stream.hasAnswerHead = true
            stream.value.stream.answerHasEnded = true
            answerLater(stream)
            return
        }
        pool.ensureRoom(for: http2.block.value.textBytesMax, in: &stream.value.input)
        var writer = ByteWriter(stream.value.input)
        guard
            let head = http2.block.value.writeResponse(
                into: &writer, endsStream: endsStream, hasBody: !stream.value.stream.isHead)
        else {
            // Nonsense by the parser's own judgement.
            stream.value.input.append("?\r\n\r\n")
            answerLater(stream)
            return
        }
        stream.value.input.commit(writer)
        if head.status >= 200 {
            stream.value.stream.hasAnswerHead = true
            stream.value.stream.answersInChunks = head.isChunked
        }
        if endsStream { stream.value.stream.answerHasEnded = true }
        answerLater(stream)
    }

    private func takeAnswerTrailers(_ stream: Slot<UpstreamConnection>) {
        stream.value.stream.answerHasEnded = true
        if stream.value.stream.answersInChunks {
            pool.ensureRoom(for: http2.block.value.textBytesMax + 32, in: &stream.value.input)
            if http2.block.value.isTrailerSection {
                stream.value.input.append("0\r\n")
                var writer = ByteWriter(stream.value.input)
                http2.block.value.writeTrailers(into: &writer)
                stream.value.input.commit(writer)
            } else {
                // No chunk: the answer must not look whole (RFC 9113 section 8.1.1).
                stream.value.input.append("?\r\n")
            }
        }
        answerLater(stream)
    }

    func takeAnswerBody(_ stream: Slot<UpstreamConnection>, _ bytes: Span<UInt8>) {
        guard !bytes.isEmpty else { return }
        // At most a window of it waits here, and the frames of its chunks.
        pool.ensureRoom(for: bytes.count + 32, in: &stream.value.input)
        if stream.value.stream.answersInChunks {
            Self.appendChunk(bytes, to: &stream.value.input)
        } else {
            stream.value.input.append(bytes)
        }
        answerLater(stream)
    }

    func takeAnswerEnd(_ stream: Slot<UpstreamConnection>) {
        guard !stream.value.stream.answerHasEnded else { return }
        stream.value.stream.answerHasEnded = true
        if stream.value.stream.isTunnel { stream.value.inputEnded = true }
        if stream.value.stream.answersInChunks {
            pool.ensureRoom(for: 32, in: &stream.value.input)
            stream.value.input.append("0\r\n\r\n")
        }
        answerLater(stream)
    }

    /// The engine has done with a stream: regularly, or because the endpoint has reset it.
    func upstreamStreamClosed(_ stream: Slot<UpstreamConnection>, _ code: UInt32) {
        // What could not be sent is told twice.
        if stream.value.stream.isClosed { return }
        stream.value.stream.isClosed = true
        stream.value.stream.isRefused =
            code == HTTP2Error.refusedStream.rawValue && !stream.value.stream.hasAnswerHead
        if let connection = upstreamConnections.lookup(stream.value.stream.connection) {
            noteEnd(connection, isRefused: stream.value.stream.isRefused)
        }
        if !stream.value.stream.answerHasEnded {
            if stream.value.stream.isTunnel {
                stream.value.stream.isCut = true
            } else {
                stream.value.inputEnded = true
            }
        }
        answerLater(stream)
    }

    /// Has `takeAnswer` called when nothing else is at work.
    func answerLater(_ stream: Slot<UpstreamConnection>) {
        guard !stream.value.stream.isQueued, !stream.value.isDead else { return }
        stream.value.stream.isQueued = true
        state.value.answersQueue.append(stream.reference)
    }

    /// Goes on with the calls whose answers have more to read.
    func takeAnswers() {
        if state.value.answersQueue.isEmpty { return }
        var index = 0
        while index < state.value.answersQueue.count {
            let reference = state.value.answersQueue[index]
            index += 1
            guard let stream = upstreamConnections.lookup(reference), !stream.value.isDead else { continue }
            stream.value.stream.isQueued = false
            if stream.value.isPaused { continue }
            takeStreamAnswer(stream)
            endStep()
        }
        state.value.answersQueue.removeAll(keepingCapacity: true)
    }

    private func takeStreamAnswer(_ stream: Slot<UpstreamConnection>) {
        let exchange = exchanges.lookup(stream.value.exchange)
        if stream.value.stream.isRefused, let exchange, exchange.value.phase != .streaming,
            !exchange.value.hasLostBody
        {
            stream.value.stream.isBlameless = true
            dropUpstream(of: exchange)
            if mayRetry(exchange) { retry(exchange) } else { failExchange(exchange, .upstreamClosed) }
            return
        }
        if stream.value.hasUnsentOutput {
            flushUpstream()
            if stream.value.isDead { return }
        }
        answer.value.clear()
        // A window's worth may be longer than the scratch block: the rest comes next.
        _ = answer.value.moveContents(from: &stream.value.input)
        var rest = Block.none
        if stream.value.input.isEmpty {
            pool.give(&stream.value.input)
        } else {
            rest = stream.value.input
            stream.value.input = .none
        }
        if !answer.value.isEmpty { stream.value.hasAnswered = true }
        let hasEnded = stream.value.inputEnded
        if !rest.isEmpty { stream.value.inputEnded = false }
        let passed = exchange?.value.responseBodyBytes ?? 0
        takeAnswer(stream)
        putBack(&rest, into: stream, hasEnded: hasEnded)
        if stream.value.stream.isCut, stream.value.input.isEmpty, !stream.value.isDead {
            upstreamBroke(stream, .upstreamClosed)
            return
        }
        guard let exchange, !stream.value.isDead, !stream.value.stream.isClosed else { return }
        let count = exchange.value.responseBodyBytes &- passed
        guard count > 0, let connection = upstreamConnections.lookup(stream.value.stream.connection) else {
            return
        }
        connection.value.multiplex.session.consumeStream(stream.value.stream.number, Int(count))
        markForFrames(connection)
    }

    /// What did not fit the scratch block goes behind what the parser has kept.
    private func putBack(_ rest: inout Block, into stream: Slot<UpstreamConnection>, hasEnded: Bool) {
        guard rest.isAllocated else { return }
        if !stream.value.isDead {
            if stream.value.input.isAllocated {
                pool.ensureRoom(for: rest.count, in: &stream.value.input)
                _ = stream.value.input.moveContents(from: &rest)
            } else {
                stream.value.input = rest
                rest = .none
            }
            stream.value.inputEnded = hasEnded
            answerLater(stream)
        }
        pool.give(&rest)
    }

    // MARK: Ends

    /// A call's stream ends, with or without its answer.
    func endUpstreamStream(_ stream: Slot<UpstreamConnection>) {
        pool.give(&stream.value.stream.trailers)
        guard let connection = upstreamConnections.lookup(stream.value.stream.connection) else { return }
        if !stream.value.stream.isClosed, stream.value.stream.number > 0, !connection.value.isDead {
            let age = state.value.nowMicroseconds &- stream.value.stream.startMicroseconds
            if age >= HardLimits.pingMicroseconds { doubt(stream) }
            connection.value.multiplex.session.reset(stream.value.stream.number, .cancel)
            markForFrames(connection)
        }
        unlink(stream, from: connection)
        streamCountChanged(connection)
    }

    func unlink(_ stream: Slot<UpstreamConnection>, from connection: Slot<UpstreamConnection>) {
        let next = stream.value.stream.next
        let previous = stream.value.stream.previous
        if let neighbour = upstreamConnections.lookup(previous) {
            neighbour.value.stream.next = next
        } else {
            connection.value.multiplex.firstStream = next
        }
        if let neighbour = upstreamConnections.lookup(next) { neighbour.value.stream.previous = previous }
        connection.value.multiplex.streamCount -= 1
    }

    private func link(_ stream: Slot<UpstreamConnection>, to connection: Slot<UpstreamConnection>) {
        stream.value.stream.next = connection.value.multiplex.firstStream
        if let next = upstreamConnections.lookup(stream.value.stream.next) {
            next.value.stream.previous = stream.reference
        }
        connection.value.multiplex.firstStream = stream.reference
        connection.value.multiplex.streamCount += 1
        streamCountChanged(connection)
    }
}
