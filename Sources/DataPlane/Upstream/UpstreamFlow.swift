import Configuration
import HTTPWire
import Reactor
import TLS

// Connections to endpoints: chosen, opened, written to, read from, kept for the next call.

extension Worker {
    /// Gives a call a connection: the last used idle one, or a new one.
    func startUpstream(_ exchange: Slot<Exchange>) {
        let number = Int(exchange.value.upstream)
        if exchange.value.attempts == 0 {
            exchange.value.upstreamStartMicroseconds = state.value.nowMicroseconds
            if exchange.value.queuedMicroseconds == 0 {
                upstreams[number].retryBudget = min(
                    upstreams[number].retryBudget + 1, HardLimits.retryBalance * HardLimits.retryShare)
            }
        }
        exchange.value.attempts &+= 1
        guard let endpoint = chooseEndpoint(exchange) else {
            failExchange(exchange, .noHealthyEndpoint, retryAfter: 1)
            return
        }
        exchange.value.endpoint = Int32(endpoint)
        if upstreams[number].usesHTTP2, !endpoints[endpoint].declinesHTTP2 {
            startUpstreamStream(exchange, endpoint: endpoint)
            return
        }
        if let idle = upstreamConnections.lookup(endpoints[endpoint].firstIdle) {
            unpark(idle)
            use(idle, for: exchange)
            return
        }
        guard endpoints[endpoint].connections < upstreams[number].connectionsMax else {
            waitForUpstream(exchange)
            return
        }
        connect(exchange, endpoint: endpoint)
    }

    private func connect(_ exchange: Slot<Exchange>, endpoint: Int) {
        metrics.add(.upstreamConnects)
        do throws(SystemError) {
            let opened = try openSocket(endpoint: endpoint)
            var fresh = UpstreamConnection(
                descriptor: opened.descriptor, endpoint: Int32(endpoint), generation: rows.generation,
                phase: .connecting, interest: .write)
            fresh.address = endpoints[endpoint].address
            guard let connection = upstreamConnections.allocate(fresh) else {
                Socket.close(opened.descriptor)
                failExchange(exchange, .overloaded, retryAfter: 1)
                return
            }
            endpoints[endpoint].connections += 1
            endpoints[endpoint].outstanding += 1
            connection.value.exchange = exchange.reference
            exchange.value.upstreamConnection = connection.reference
            exchange.value.phase = .connecting
            try poller.add(
                opened.descriptor, token: Token(.upstream, connection.reference).rawValue, .write)
            setTimer(connection, after: upstreams[Int(exchange.value.upstream)].connectTimeoutMicroseconds)
            if !opened.inProgress { isConnected(connection) }
        } catch {
            connectFailed(exchange, endpoint: endpoint, error)
        }
    }

    func openSocket(endpoint: Int) throws(SystemError) -> (descriptor: Descriptor, inProgress: Bool) {
        if endpoints[endpoint].isUnixSocket { return try Socket.connect(toUnixPath: unixPaths[endpoint]) }
        guard let address = endpoints[endpoint].address else {
            throw SystemError(code: 113, operation: "resolve")
        }
        return try Socket.connect(to: address)
    }

    /// TCP or the Unix socket is up.
    func isConnected(_ connection: Slot<UpstreamConnection>) {
        let endpoint = Int(connection.value.endpoint)
        guard endpoints[endpoint].usesTLS else {
            isReady(connection)
            return
        }
        let upstream = Int(endpoints[endpoint].upstream)
        guard let session = clients[upstream]?.makeSession(serverName: serverNames[endpoint]) else {
            upstreamBroke(connection, .connectFailed)
            return
        }
        connection.value.session = session
        connection.value.phase = .handshaking
        wire.setInbound(.none)
        shakeHands(connection)
    }

    private func shakeHands(_ connection: Slot<UpstreamConnection>) {
        let progress = connection.value.session.handshake()
        sendUpstreamWire(connection)
        if connection.value.isDead { return }
        switch progress {
        case .wantsInput: updateInterest(connection)
        case .failed:
            let reason = connection.value.session.takeFailureReason()
            let name = serverNames[Int(connection.value.endpoint)]
            shared.report(.warning, "TLS to upstream \(name): \(reason)", every: 60)
            upstreamBroke(connection, .connectFailed)
        case .done:
            // Tickets and settings may come together with the end of the handshake.
            if wire.inboundRemaining > 0 || connection.value.session.hasPendingPlaintext {
                decrypt(connection)
                if connection.value.isDead { return }
            }
            guard !connection.value.inputEnded else {
                upstreamBroke(connection, .connectFailed)
                return
            }
            isReady(connection)
        }
    }

    private func isReady(_ connection: Slot<UpstreamConnection>) {
        connection.value.phase = .busy
        if connection.value.kind == .http2 {
            startUpstreamHTTP2(connection)
            return
        }
        guard let exchange = exchanges.lookup(connection.value.exchange), !exchange.value.isDead else {
            closeUpstream(connection)
            return
        }
        endpoints[Int(connection.value.endpoint)].outstanding -= 1
        use(connection, for: exchange)
    }

    /// Sends the call's head; its body follows from the caller's side.
    func use(_ connection: Slot<UpstreamConnection>, for exchange: Slot<Exchange>) {
        connection.value.phase = .busy
        connection.value.exchange = exchange.reference
        connection.value.hasAnswered = false
        connection.value.isPaused = false
        connection.value.mayBeKept = false
        exchange.value.upstreamConnection = connection.reference
        exchange.value.phase = .awaitingResponse
        endpoints[Int(connection.value.endpoint)].outstanding += 1
        claimUpstream(connection)
        let head = exchange.value.head
        toUpstream.value.append(head.readable)
        toUpstream.value.append(exchange.value.keptBody.readable)
        awaitUpstream(connection, exchange)
        updateInterest(connection)
        if !exchange.value.requestIsSent { resumeBody(exchange) }
    }

    /// Goes on with a caller whose upstream has begun, or begins again, to take what it sends. The time
    /// before was not the caller's.
    func resumeBody(_ exchange: Slot<Exchange>) {
        guard let slot = downstreams.lookup(exchange.value.downstream) else { return }
        if slot.value.request == .body { timeBody(slot) }
        resumeLater(slot)
    }

    /// The connection that body bytes may go to now.
    func writableUpstream(_ exchange: Slot<Exchange>) -> Slot<UpstreamConnection>? {
        guard exchange.value.phase == .awaitingResponse || exchange.value.phase == .streaming,
            let connection = upstreamConnections.lookup(exchange.value.upstreamConnection),
            !connection.value.isDead, connection.value.output.isEmpty
        else { return nil }
        return connection
    }

    // MARK: Output

    /// Makes what is written to the scratch block from here on this connection's.
    func claimUpstream(_ connection: Slot<UpstreamConnection>) {
        if upstreamParts.value.owner == connection.reference { return }
        // Two parts of one connection could be sent in the wrong order, and a part needs room: many calls may
        // be retried in one turn.
        if connection.value.hasUnsentOutput || toUpstream.value.count > HardLimits.deferredBytes {
            flushUpstream()
        }
        connection.value.hasUnsentOutput = true
        upstreamParts.value.open(for: connection.reference, at: toUpstream.value.count)
    }

    /// Sends the scratch block to the upstreams whose parts it holds.
    func flushUpstream() {
        repeat {
            while let part = upstreamParts.value.takeNext() {
                guard let connection = upstreamConnections.lookup(part.owner), !connection.value.isDead
                else { continue }
                connection.value.hasUnsentOutput = false
                if !part.range.isEmpty { sendPart(connection, part.range) }
            }
            upstreamParts.value.seal(at: toUpstream.value.count)
        } while !upstreamParts.value.isEmpty
        toUpstream.value.clear()
    }

    private func sendPart(_ connection: Slot<UpstreamConnection>, _ range: Range<Int>) {
        let block = toUpstream.value
        if connection.value.kind == .stream {
            translateRequest(connection, block, range)
            return
        }
        guard connection.value.session.isOpen else {
            sendToUpstream(connection, block.span(range))
            return
        }
        // The wire may hold a caller's records: they go first.
        if wire.hasOutbound { flushDownstream() }
        guard connection.value.session.write(block.span(range)) else {
            wire.clearOutbound()
            upstreamBroke(connection, .upstreamClosed)
            return
        }
        sendUpstreamWire(connection)
    }

    func sendUpstreamWire(_ connection: Slot<UpstreamConnection>) {
        guard wire.hasOutbound else { return }
        let block = wire.outbound
        wire.clearOutbound()
        sendToUpstream(connection, block.readable)
    }

    func sendToUpstream(_ connection: Slot<UpstreamConnection>, _ bytes: Span<UInt8>) {
        var sent = 0
        if connection.value.output.isEmpty {
            switch Socket.send(connection.value.descriptor, bytes) {
            case .bytes(let n): sent = n
            case .wouldBlock: break
            case .endOfStream, .failed:
                // An early answer may be waiting behind the broken pipe: it is read before giving up.
                connection.value.outputIsBroken = true
                rearm(connection)
                return
            }
        }
        if sent == bytes.count { return }
        // What is due to it without being asked for, as answers to key updates, is not kept for ever.
        guard connection.value.output.count + bytes.count - sent <= HardLimits.upstreamOutputBytes else {
            upstreamBroke(connection, .upstreamNonsense)
            return
        }
        pool.ensureRoom(for: bytes.count - sent, in: &connection.value.output)
        connection.value.output.append(bytes.extracting(sent..<bytes.count))
        updateInterest(connection)
    }

    /// Ends our side of a connection whose output is all sent; the endpoint's side goes on.
    func endUpstreamOutput(_ connection: Slot<UpstreamConnection>) {
        if connection.value.kind == .stream {
            endRequestStream(connection)
            return
        }
        guard connection.value.output.isEmpty else { return }
        if connection.value.session.isOpen {
            connection.value.session.closeNotify()
            sendUpstreamWire(connection)
            if connection.value.isDead || !connection.value.output.isEmpty { return }
        }
        Socket.shutdownWrite(connection.value.descriptor)
    }

    private func drainOutput(_ connection: Slot<UpstreamConnection>) {
        guard !connection.value.output.isEmpty else {
            updateInterest(connection)
            return
        }
        let block = connection.value.output
        switch Socket.send(connection.value.descriptor, block.readable) {
        case .bytes(let n): connection.value.output.consume(n)
        case .wouldBlock: return
        case .endOfStream, .failed:
            // As in `sendToUpstream`.
            connection.value.outputIsBroken = true
            pool.give(&connection.value.output)
            updateInterest(connection)
            rearm(connection)
            return
        }
        if let exchange = exchanges.lookup(connection.value.exchange) {
            awaitUpstream(connection, exchange)
        }
        guard connection.value.output.isEmpty else { return }
        pool.give(&connection.value.output)
        updateInterest(connection)
        if connection.value.kind == .http2 {
            markForFrames(connection)
            return
        }
        if connection.value.hasEndedOutput { endUpstreamOutput(connection) }
        if let exchange = exchanges.lookup(connection.value.exchange) { resumeBody(exchange) }
    }

    // MARK: Events

    /// Closes an idle connection whose endpoint has hung up or speaks unasked, before a caller of the same
    /// turn could be given what it says.
    func dropUnasked(_ event: Event) {
        let token = Token(rawValue: event.token)
        guard token.kind == .upstream, let connection = upstreamConnections.lookup(token.reference),
            connection.value.phase == .idle, !connection.value.isDead
        else { return }
        endIdle(connection)
    }

    func handleUpstream(_ event: Event, _ connection: Slot<UpstreamConnection>) {
        if connection.value.hasUnsentOutput {
            flushUpstream()
            if connection.value.isDead { return }
        }
        switch connection.value.phase {
        case .connecting:
            if Socket.pendingError(connection.value.descriptor) != 0 {
                upstreamBroke(connection, .connectFailed)
            } else {
                isConnected(connection)
            }
        case .idle:
            // Closed by the endpoint, or bytes that nobody asked for.
            endIdle(connection)
        case .handshaking, .busy:
            if event.isWritable { drainOutput(connection) }
            if connection.value.isDead { return }
            guard event.isReadable || event.isPeerClosed || event.isHangup else { return }
            // A hangup is told whatever is watched for. Its caller takes no more as yet; going on with it
            // tells of the hangup again.
            if connection.value.isPaused { return }
            let isEmptied = receive(connection, isHangup: event.isHangup)
            if connection.value.isDead { return }
            if event.isPeerClosed || event.isHangup, connection.value.phase == .idle {
                endIdle(connection)
            } else if !isEmptied || event.isPeerClosed || event.isHangup {
                rearm(connection)
            }
        }
    }

    /// Arms an edge-triggered connection again whose bytes, or whose end, have not all been taken.
    private func rearm(_ connection: Slot<UpstreamConnection>) {
        let interest = connection.value.interest
        guard interest.rawValue & Interest.edgeTriggered.rawValue != 0 else { return }
        poller.modify(
            connection.value.descriptor, token: Token(.upstream, connection.reference).rawValue, interest)
    }

    /// - Returns: whether the socket held no more than was taken.
    private func receive(_ connection: Slot<UpstreamConnection>, isHangup: Bool) -> Bool {
        let usesTLS = connection.value.session.isOpen
        answer.value.clear()
        if connection.value.input.isAllocated {
            _ = answer.value.moveContents(from: &connection.value.input)
            pool.give(&connection.value.input)
        }
        received.value.clear()
        let room = min(usesTLS ? received.value.freeCount : answer.value.freeCount, HardLimits.readBytes)
        var isEmptied = true
        let result =
            usesTLS
            ? Socket.receive(
                connection.value.descriptor, into: &received.value, limit: HardLimits.readBytes)
            : Socket.receive(
                connection.value.descriptor, into: &answer.value, limit: HardLimits.readBytes)
        switch result {
        case .wouldBlock:
            if !answer.value.isEmpty { restash(connection) }
            if isHangup { upstreamBroke(connection, .upstreamClosed) }
            return true
        case .failed, .endOfStream:
            // Over TLS an end without a goodbye may be anybody's: what came may not be all (RFC 9112
            // section 9.8). A WebSocket's goodbye is a frame of its own.
            var isEnd = isClosing(connection)
            // Whose reset a failed send has been told of already, its end is none.
            if case .endOfStream = result, !usesTLS, !connection.value.outputIsBroken { isEnd = true }
            guard isEnd else {
                upstreamBroke(connection, .upstreamClosed)
                return true
            }
            connection.value.inputEnded = true
            updateInterest(connection)
        case .bytes(let count):
            isEmptied = count < room
            if !usesTLS {
                connection.value.hasAnswered = true
            } else {
                wire.setInbound(received.value)
                if connection.value.phase == .handshaking {
                    shakeHands(connection)
                    if connection.value.isDead || answer.value.isEmpty { return isEmptied }
                    guard connection.value.kind == .http2 else {
                        // An answer to nothing.
                        upstreamBroke(connection, .upstreamNonsense)
                        return isEmptied
                    }
                } else {
                    decrypt(connection)
                }
                if connection.value.isDead { return true }
                sendUpstreamWire(connection)
                if connection.value.isDead { return true }
                // Not for a goodbye or a ticket.
                if !answer.value.isEmpty { connection.value.hasAnswered = true }
            }
        }
        if connection.value.kind == .http2 {
            feedUpstreamHTTP2(connection)
        } else {
            takeAnswer(connection)
        }
        return isEmptied
    }

    /// Takes what `answer` holds for a connection's call.
    func takeAnswer(_ connection: Slot<UpstreamConnection>) {
        guard let exchange = exchanges.lookup(connection.value.exchange), !exchange.value.isDead else {
            closeUpstream(connection)
            return
        }
        let before = progress(of: exchange)
        readResponse(exchange, connection)
        if connection.value.isDead || exchange.value.isDead { return }
        if connection.value.inputEnded {
            upstreamBroke(connection, .upstreamClosed)
            return
        }
        // A head, a chunk's line or a trailer section that comes byte by byte gains no time.
        if progress(of: exchange) != before { awaitUpstream(connection, exchange) }
        pauseIfSlow(exchange, connection)
    }

    /// Grows with every head and every byte of content.
    private func progress(of exchange: Slot<Exchange>) -> Int64 {
        exchange.value.responseBodyBytes &+ Int64(exchange.value.interimAnswers)
            &+ (exchange.value.phase == .streaming ? 1 : 0)
    }

    private func restash(_ connection: Slot<UpstreamConnection>) {
        connection.value.input = pool.take(atLeast: max(4_096, answer.value.count))
        _ = connection.value.input.moveContents(from: &answer.value)
    }

    private func decrypt(_ connection: Slot<UpstreamConnection>) {
        while answer.value.freeCount > 0 {
            switch connection.value.session.read(into: &answer.value) {
            case .bytes:
                if wire.inboundRemaining == 0, !connection.value.session.hasPendingPlaintext { return }
            case .wantsInput: return
            case .closed:
                connection.value.inputEnded = true
                return
            case .failed:
                // The alert that says why: on the wire it would go to whoever writes next.
                sendUpstreamWire(connection)
                if !connection.value.isDead { upstreamBroke(connection, .upstreamClosed) }
                return
            }
        }
    }

    /// Stops reading from the upstream while its caller does not take what is there.
    private func pauseIfSlow(_ exchange: Slot<Exchange>, _ connection: Slot<UpstreamConnection>) {
        finishStep()
        guard !connection.value.isDead, !exchange.value.isDead,
            let slot = downstreams.lookup(exchange.value.downstream), !slot.value.isDead
        else { return }
        guard !slot.value.output.isEmpty else { return }
        connection.value.isPaused = true
        // The caller's own timer runs now.
        cancelTimer(connection)
        updateInterest(connection)
    }

    /// The caller has taken everything.
    func resumeUpstreamReading(_ exchange: Slot<Exchange>) {
        guard let connection = upstreamConnections.lookup(exchange.value.upstreamConnection),
            connection.value.isPaused
        else { return }
        connection.value.isPaused = false
        awaitUpstream(connection, exchange)
        updateInterest(connection)
        if connection.value.kind == .stream { answerLater(connection) }
    }

    func updateInterest(_ connection: Slot<UpstreamConnection>) {
        guard !connection.value.isDead, connection.value.kind != .stream else { return }
        var wanted = Interest.none
        if !connection.value.inputEnded, !connection.value.isPaused { wanted = wanted.adding(.read) }
        if !connection.value.output.isEmpty { wanted = wanted.adding(.write) }
        // An answer is most often read whole: looking whether more has come would cost as much as the event.
        if connection.value.kind == .http1 { wanted = wanted.adding(.edgeTriggered) }
        guard wanted.rawValue != connection.value.interest.rawValue else { return }
        connection.value.interest = wanted
        poller.modify(
            connection.value.descriptor, token: Token(.upstream, connection.reference).rawValue, wanted)
    }
}
