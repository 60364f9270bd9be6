import HTTP2
import HTTPWire
import Reactor
import TLS

// Connections of HTTP/2 to endpoints. Calls share them: each is a stream, kept as a connection of one call
// (see HTTP2UpstreamStream.swift), so that pool, retry and timeouts need not know. An endpoint's connections
// form a list; the first one with room takes the next call, another is opened when all are full. On a new one
// nothing is asked before the endpoint has said how many calls it takes at once.

/// What a connection to an endpoint keeps of HTTP/2.
struct UpstreamMultiplex {
    var session = HTTP2Session()
    var firstStream = SlotReference.none
    var streamCount = 0
    /// Whether it gets no further calls.
    var takesNoMore = false
    /// Whether the endpoint has said so (GOAWAY).
    var isLeaving = false
    /// Whether the endpoint has said what it can, and whether calls wait for that.
    var hasSettings = false
    var hasWaiting = false
    /// Whether a call has ended without a byte from the endpoint: no other goes there before it speaks.
    var isDoubted = false
    /// When the endpoint has last spoken.
    var heardMicroseconds: Int64 = 0
    var isQueued = false
    /// Neighbours in the endpoint's list.
    var next = SlotReference.none
    var previous = SlotReference.none
}

extension Worker {
    // MARK: Choice

    /// Gives a call a stream: on a connection that has room, or on a new one.
    func startUpstreamStream(_ exchange: Slot<Exchange>, endpoint: Int) {
        let callsMax = upstreams[Int(exchange.value.upstream)].connectionsMax
        guard endpoints[endpoint].outstanding < callsMax else {
            waitForUpstream(exchange)
            return
        }
        if let connection = roomyConnection(endpoint) {
            addStream(to: connection, for: exchange)
            return
        }
        // An endpoint may allow no streams at all for a while: nothing is gained by asking on other
        // connections too (RFC 9113 section 5.1.2).
        guard endpoints[endpoint].connections < callsMax, !takesNone(endpoint) else {
            waitForUpstream(exchange)
            return
        }
        openMultiplexed(exchange, endpoint: endpoint)
    }

    private func roomyConnection(_ endpoint: Int) -> Slot<UpstreamConnection>? {
        var reference = endpoints[endpoint].firstMultiplexed
        while let connection = upstreamConnections.lookup(reference) {
            if hasRoom(connection) { return connection }
            reference = connection.value.multiplex.next
        }
        return nil
    }

    private func hasRoom(_ connection: Slot<UpstreamConnection>) -> Bool {
        guard !connection.value.isDead, !connection.value.multiplex.takesNoMore,
            !connection.value.multiplex.isDoubted
        else { return false }
        // As many wait for its settings as the connection before it has taken.
        var room = max(1, endpoints[Int(connection.value.endpoint)].streamsAllowed)
        if connection.value.multiplex.hasSettings {
            guard connection.value.multiplex.session.allowsRequests else { return false }
            room = min(
                endpoints[Int(connection.value.endpoint)].callsTaken,
                connection.value.multiplex.session.remoteStreamsMax)
        }
        return connection.value.multiplex.streamCount < room
    }

    /// A call has ended. One that was refused unread says that the endpoint takes fewer at once than it has
    /// said, unless the endpoint is leaving the connection.
    func noteEnd(_ connection: Slot<UpstreamConnection>, isRefused: Bool) {
        let endpoint = Int(connection.value.endpoint)
        if isRefused, !connection.value.multiplex.isLeaving {
            // Those refused together still count as its streams.
            let taken = min(endpoints[endpoint].callsTaken, connection.value.multiplex.streamCount)
            endpoints[endpoint].callsTaken = max(1, taken - 1)
            endpoints[endpoint].answersInARow = 0
        } else if endpoints[endpoint].callsTaken < HTTP2Engine.streamsMax {
            endpoints[endpoint].answersInARow += 1
            guard endpoints[endpoint].answersInARow >= HardLimits.answersPerTrial else { return }
            endpoints[endpoint].callsTaken += 1
            endpoints[endpoint].answersInARow = 0
        }
    }

    /// Whether the endpoint has said on one of its connections that it takes no calls at present.
    private func takesNone(_ endpoint: Int) -> Bool {
        var reference = endpoints[endpoint].firstMultiplexed
        while let connection = upstreamConnections.lookup(reference) {
            if connection.value.multiplex.hasSettings, !connection.value.multiplex.takesNoMore,
                !connection.value.multiplex.isDoubted, !connection.value.isDead,
                connection.value.multiplex.session.remoteStreamsMax == 0
            {
                return true
            }
            reference = connection.value.multiplex.next
        }
        return false
    }

    private func openMultiplexed(_ exchange: Slot<Exchange>, endpoint: Int) {
        metrics.add(.upstreamConnects)
        do throws(SystemError) {
            let opened = try openSocket(endpoint: endpoint)
            var fresh = UpstreamConnection(
                descriptor: opened.descriptor, endpoint: Int32(endpoint), generation: rows.generation,
                phase: .connecting, interest: .write)
            fresh.kind = .http2
            fresh.address = endpoints[endpoint].address
            guard let connection = upstreamConnections.allocate(fresh) else {
                Socket.close(opened.descriptor)
                failExchange(exchange, .overloaded, retryAfter: 1)
                return
            }
            endpoints[endpoint].connections += 1
            listMultiplexed(connection, endpoint)
            do throws(SystemError) {
                try poller.add(
                    opened.descriptor, token: Token(.upstream, connection.reference).rawValue, .write)
            } catch {
                closeUpstream(connection)
                throw error
            }
            setTimer(connection, after: upstreams[Int(exchange.value.upstream)].connectTimeoutMicroseconds)
            addStream(to: connection, for: exchange)
            if !opened.inProgress { isConnected(connection) }
        } catch {
            connectFailed(exchange, endpoint: endpoint, error)
        }
    }

    private func listMultiplexed(_ connection: Slot<UpstreamConnection>, _ endpoint: Int) {
        connection.value.multiplex.next = endpoints[endpoint].firstMultiplexed
        if let next = upstreamConnections.lookup(connection.value.multiplex.next) {
            next.value.multiplex.previous = connection.reference
        }
        endpoints[endpoint].firstMultiplexed = connection.reference
    }

    /// A connection is being closed: no call finds it any more.
    func forgetMultiplexed(_ connection: Slot<UpstreamConnection>) {
        let endpoint = Int(connection.value.endpoint)
        let next = connection.value.multiplex.next
        let previous = connection.value.multiplex.previous
        if let neighbour = upstreamConnections.lookup(previous) {
            neighbour.value.multiplex.next = next
        } else if endpoints[endpoint].firstMultiplexed == connection.reference {
            endpoints[endpoint].firstMultiplexed = next
        }
        if let neighbour = upstreamConnections.lookup(next) { neighbour.value.multiplex.previous = previous }
        http2.free(&connection.value.multiplex.session)
    }

    // MARK: Life

    /// TCP, and TLS where there is any, are up: the endpoint is greeted. Its settings have to come within
    /// what is left of the time for connecting.
    func startUpstreamHTTP2(_ connection: Slot<UpstreamConnection>) {
        let endpoint = Int(connection.value.endpoint)
        if connection.value.session.isOpen, !connection.value.session.speaksHTTP2 {
            endpoints[endpoint].declinesHTTP2 = true
            restartElsewhere(connection)
            return
        }
        guard let session = http2.makeClient() else {
            multiplexedBroke(connection, .connectFailed)
            return
        }
        connection.value.multiplex.session = session
        connection.value.multiplex.hasWaiting = true
        markForFrames(connection)
        updateInterest(connection)
    }

    /// The endpoint has spoken: as many of the calls that have waited for it begin as it allows, the oldest
    /// first. The others go where there is room.
    private func beginWaiting(_ connection: Slot<UpstreamConnection>) {
        guard connection.value.multiplex.hasSettings, connection.value.multiplex.hasWaiting else { return }
        connection.value.multiplex.hasWaiting = false
        guard connection.value.multiplex.session.allowsRequests else {
            multiplexedBroke(connection, .connectFailed)
            return
        }
        let allowed = min(
            HTTP2Engine.streamsMax, connection.value.multiplex.session.remoteStreamsMax)
        endpoints[Int(connection.value.endpoint)].streamsAllowed = allowed
        var begun = 0
        var reference = oldestStream(connection)
        while let stream = upstreamConnections.lookup(reference) {
            reference = stream.value.stream.previous
            guard stream.value.phase == .connecting, !stream.value.isDead else { continue }
            if begun < allowed {
                begun += 1
                beginStream(stream)
            } else {
                placeElsewhere(stream)
            }
            if connection.value.isDead { return }
        }
        streamCountChanged(connection)
    }

    private func oldestStream(_ connection: Slot<UpstreamConnection>) -> SlotReference {
        var reference = connection.value.multiplex.firstStream
        while let stream = upstreamConnections.lookup(reference),
            upstreamConnections.lookup(stream.value.stream.next) != nil
        {
            reference = stream.value.stream.next
        }
        return reference
    }

    /// The endpoint speaks HTTP/1.1 only: the calls that waited go there as such.
    private func restartElsewhere(_ connection: Slot<UpstreamConnection>) {
        while let stream = upstreamConnections.lookup(connection.value.multiplex.firstStream) {
            placeElsewhere(stream)
        }
        closeUpstream(connection)
    }

    /// A call that has not begun on a connection looks for another one, which is no attempt of its own.
    private func placeElsewhere(_ stream: Slot<UpstreamConnection>) {
        let exchange = exchanges.lookup(stream.value.exchange)
        closeUpstream(stream)
        guard let exchange, !exchange.value.isDead else { return }
        exchange.value.upstreamConnection = .none
        exchange.value.attempts -= 1
        startUpstream(exchange)
    }

    /// Takes what has arrived on a connection; its streams go on from there.
    func feedUpstreamHTTP2(_ connection: Slot<UpstreamConnection>) {
        let block = answer.value
        var isNonsense = false
        if !block.isEmpty {
            hearUpstream(connection)
            state.value.multiplexedUpstream = connection.reference
            let goesOn = http2.receive(connection.value.multiplex.session, block.readable)
            state.value.multiplexedUpstream = .none
            answer.value.clear()
            if !goesOn { connection.value.multiplex.session.terminate(.protocolError) }
            isNonsense =
                !goesOn
                || !connection.value.multiplex.isLeaving && connection.value.multiplex.session.hasGivenUp
        }
        if !isNonsense { beginWaiting(connection) }
        // What arrived whole is passed on before the end is.
        takeAnswers()
        if connection.value.isDead { return }
        if isNonsense {
            // The GOAWAY that says why; then no call has anything to wait for (RFC 9113 section 5.4.1).
            sendFrames(connection)
            multiplexedBroke(connection, .upstreamNonsense)
            return
        }
        if connection.value.inputEnded || connection.value.multiplex.session.isFinished {
            multiplexedBroke(connection, .upstreamClosed)
            return
        }
        markForFrames(connection)
    }

    // MARK: Silence

    /// Bytes have come: whatever was doubted lives.
    private func hearUpstream(_ connection: Slot<UpstreamConnection>) {
        connection.value.multiplex.heardMicroseconds = state.value.nowMicroseconds
        guard connection.value.multiplex.isDoubted else { return }
        connection.value.multiplex.isDoubted = false
        streamCountChanged(connection)
    }

    /// A call has ended without its answer. Where nothing else has come since it began, its connection may be
    /// dead without anybody having said so: it gets no further call before it answers a PING.
    func doubt(_ stream: Slot<UpstreamConnection>) {
        guard stream.value.kind == .stream, stream.value.stream.number > 0,
            let connection = upstreamConnections.lookup(stream.value.stream.connection),
            !connection.value.isDead, !connection.value.multiplex.isDoubted,
            connection.value.multiplex.heardMicroseconds <= stream.value.stream.startMicroseconds
        else { return }
        connection.value.multiplex.isDoubted = true
        connection.value.multiplex.session.ping()
        markForFrames(connection)
    }

    // MARK: Frames

    func markForFrames(_ connection: Slot<UpstreamConnection>) {
        guard !connection.value.isDead, connection.value.multiplex.session.isOpen,
            !connection.value.multiplex.isQueued
        else { return }
        connection.value.multiplex.isQueued = true
        state.value.upstreamFramesQueue.append(connection.reference)
    }

    /// Sends the frames of a connection.
    func sendFrames(_ connection: Slot<UpstreamConnection>) {
        while connection.value.output.isEmpty {
            state.value.multiplexedUpstream = connection.reference
            let goesOn = http2.send(connection.value.multiplex.session)
            state.value.multiplexedUpstream = .none
            let frames = http2.frames.value
            if !goesOn {
                multiplexedBroke(connection, .upstreamNonsense)
                return
            }
            if frames.isEmpty { break }
            if connection.value.session.isOpen {
                // The wire may hold a caller's records: they go first.
                if wire.hasOutbound { flushDownstream() }
                guard connection.value.session.write(frames.readable) else {
                    multiplexedBroke(connection, .upstreamClosed)
                    return
                }
                sendUpstreamWire(connection)
            } else {
                sendToUpstream(connection, frames.readable)
            }
            if connection.value.isDead { return }
            if connection.value.outputIsBroken {
                multiplexedBroke(connection, .upstreamClosed)
                return
            }
        }
        // The endpoint has broken the protocol, or has said goodbye and has had its last answer taken.
        if connection.value.output.isEmpty, connection.value.multiplex.session.isFinished {
            multiplexedBroke(
                connection, connection.value.multiplex.isLeaving ? .upstreamClosed : .upstreamNonsense)
        }
        settleUpstreamStreams()
    }

    /// The last stream of a connection has gone, or a first one has come.
    func streamCountChanged(_ connection: Slot<UpstreamConnection>) {
        // Before its settings the time for connecting runs.
        guard connection.value.multiplex.hasSettings, !connection.value.isDead else { return }
        if connection.value.multiplex.streamCount > 0 {
            cancelTimer(connection)
        } else if connection.value.multiplex.isDoubted {
            setTimer(connection, after: HardLimits.pingMicroseconds)
        } else if connection.value.multiplex.takesNoMore || state.value.isDraining {
            // Not from within the engine: the timer closes it.
            setTimer(connection, after: 0)
        } else {
            let upstream = Int(endpoints[Int(connection.value.endpoint)].upstream)
            setTimer(connection, after: upstreams[upstream].idleTimeoutMicroseconds)
        }
    }

    /// A connection without streams has been quiet for too long, or takes no more; or its settings are late.
    func retireMultiplexed(_ connection: Slot<UpstreamConnection>) {
        guard connection.value.multiplex.hasSettings else {
            multiplexedBroke(connection, .connectFailed)
            return
        }
        guard connection.value.multiplex.streamCount == 0 else { return }
        connection.value.multiplex.session.terminate(.none)
        sendFrames(connection)
        if !connection.value.isDead { closeUpstream(connection) }
    }

    /// A connection cannot go on: each of its calls is retried where that is safe, answered, or cut.
    func multiplexedBroke(_ connection: Slot<UpstreamConnection>, _ reason: Reason) {
        guard !connection.value.isDead else { return }
        if reason == .connectFailed { leaveAddress(of: connection) }
        connection.value.multiplex.takesNoMore = true
        var isFirst = true
        while let stream = upstreamConnections.lookup(connection.value.multiplex.firstStream) {
            if stream.value.stream.isClosed {
                // All that ever comes of it is here, and goes on to a caller that may be slow.
                unlink(stream, from: connection)
                stream.value.stream.connection = .none
                answerLater(stream)
                continue
            }
            // One connection that breaks is one failure, however many calls it carried.
            stream.value.stream.isBlameless = !isFirst
            stream.value.stream.isClosed = true
            isFirst = false
            upstreamBroke(stream, reason)
            if !stream.value.isDead { closeUpstream(stream) }
        }
        closeUpstream(connection)
    }
}
