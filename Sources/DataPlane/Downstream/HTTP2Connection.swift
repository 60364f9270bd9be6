import Configuration
package import HTTP2
import HTTPWire
package import Reactor
import TLS

// A caller's connection that speaks HTTP/2. Its frames are read here and become streams; a stream is a caller
// like any other, met by the same gate and the same exchange (see HTTP2Stream.swift). Frames of all streams
// leave together at the end of a step.

/// What a connection keeps of HTTP/2.
struct MultiplexState {
    var session = HTTP2Session()
    var firstStream = SlotReference.none
    var streamCount = 0
    var budget = FrameBudget()
    /// Whether the connection already waits in the worker's queue of frames.
    var isQueued = false
    /// Body bytes whose window on the connection has not been opened again yet.
    var heldBytes = 0
}

extension Worker {
    /// Both sides have agreed on HTTP/2.
    func startHTTP2(_ slot: Slot<Downstream>) {
        guard let session = http2.makeServer() else {
            abandon(slot, .overloaded)
            return
        }
        slot.value.kind = .http2
        slot.value.multiplex.session = session
        // The caller's preface is a head of its own kind.
        setTimer(slot, after: Int64(timeouts.head) * 1_000)
        markForFrames(slot)
    }

    /// Takes the plaintext of this step.
    func feedHTTP2(_ slot: Slot<Downstream>) {
        let block = plain.value
        guard !block.isEmpty else { return }
        state.value.multiplexed = slot.reference
        let goesOn = http2.receive(slot.value.multiplex.session, block.readable)
        state.value.multiplexed = .none
        plain.value.clear()
        if !goesOn {
            // What the library has to say of it goes out first.
            slot.value.isFinishing = true
        }
        markForFrames(slot)
    }

    /// Has the connection's frames sent at the end of the step.
    func markForFrames(_ slot: Slot<Downstream>) {
        guard !slot.value.isDead, !slot.value.multiplex.isQueued else { return }
        slot.value.multiplex.isQueued = true
        state.value.framesQueue.append(slot.reference)
    }

    /// Sends the frames of all connections that have some.
    func sendFrames() {
        var index = 0
        while index < state.value.framesQueue.count {
            let reference = state.value.framesQueue[index]
            index += 1
            guard let slot = downstreams.lookup(reference), !slot.value.isDead else { continue }
            slot.value.multiplex.isQueued = false
            sendFrames(slot)
        }
        state.value.framesQueue.removeAll(keepingCapacity: true)
    }

    private func sendFrames(_ slot: Slot<Downstream>) {
        guard slot.value.transport == .open else { return }
        while slot.value.output.isEmpty {
            state.value.multiplexed = slot.reference
            let goesOn = http2.send(slot.value.multiplex.session)
            state.value.multiplexed = .none
            if !goesOn {
                abandon(slot, .badRequest)
                return
            }
            let frames = http2.frames.value
            if frames.isEmpty { break }
            guard encrypt(slot, frames.readable) else { return }
            sendWire(slot)
            if slot.value.isDead { return }
        }
        settleStreams()
        if slot.value.isDead { return }
        if slot.value.isFinishing || slot.value.multiplex.session.isFinished {
            slot.value.isFinishing = true
            afterOutput(slot)
        }
    }

    // MARK: Time

    /// A connection without streams has been quiet for too long.
    func expireHTTP2(_ slot: Slot<Downstream>) {
        guard slot.value.multiplex.streamCount == 0 else { return }
        slot.value.multiplex.session.refuseFurtherStreams()
        slot.value.isFinishing = true
        markForFrames(slot)
    }

    /// The process ends: callers are told to go elsewhere, in two steps, so that no stream that is already
    /// under way is lost (RFC 9113 section 6.8).
    func drainHTTP2(_ slot: Slot<Downstream>) {
        guard slot.value.transport == .open else { return }
        if state.value.hasListeners {
            slot.value.multiplex.session.announceShutdown()
        } else {
            slot.value.multiplex.session.refuseFurtherStreams()
        }
        markForFrames(slot)
    }

    /// The last stream of a connection has gone, or a first one has come.
    func streamCountChanged(_ slot: Slot<Downstream>) {
        if slot.value.multiplex.streamCount == 0 {
            setTimer(slot, after: Int64(timeouts.idle) * 1_000)
        } else if slot.value.multiplex.streamCount == 1, slot.value.output.isEmpty {
            cancelTimer(slot)
        }
    }

    /// Every stream of a connection ends with it.
    func endStreams(_ slot: Slot<Downstream>, _ reason: Reason) {
        guard slot.value.kind == .http2 else { return }
        while let stream = downstreams.lookup(slot.value.multiplex.firstStream) {
            abandonStream(stream, reason == .none ? .callerGone : reason, isClosed: true)
        }
        slot.value.multiplex.session.free()
    }
}

// MARK: - What the engine tells

extension Worker: HTTP2Owner {
    /// The caller's connection whose frames are at work.
    private var current: Slot<Downstream>? {
        guard let slot = downstreams.lookup(state.value.multiplexed), !slot.value.isDead else { return nil }
        return slot
    }

    private func stream(_ tag: UInt64) -> Slot<Downstream>? {
        guard tag != 0, let slot = downstreams.lookup(Token(rawValue: tag).reference), !slot.value.isDead
        else { return nil }
        return slot
    }

    package func http2HeadBegan(_ session: HTTP2Session) {
        guard let slot = current, slot.value.multiplex.streamCount == 0 else { return }
        setTimer(slot, after: Int64(timeouts.head) * 1_000)
    }

    package func http2Head(
        _ session: HTTP2Session, stream number: Int32, _ kind: HTTP2HeadKind, endsStream: Bool
    ) {
        guard let connection = current else { return }
        switch kind {
        case .request: openStream(connection, number, endsStream: endsStream)
        case .response: break
        case .interimOrTrailers:
            guard let slot = stream(session.tag(ofStream: number)) else { return }
            takeTrailers(slot)
        }
    }

    package func http2Data(_ session: HTTP2Session, stream number: Int32, _ bytes: Span<UInt8>) {
        guard let connection = current else { return }
        connection.value.multiplex.budget.earn(1)
        // A stream that stalls keeps its own window shut, not its neighbours', as long as memory allows.
        connection.value.multiplex.heldBytes += bytes.count
        if pool.bytesOutstanding < HardLimits.bodyBytesHeld {
            session.consumeConnection(connection.value.multiplex.heldBytes)
            connection.value.multiplex.heldBytes = 0
        }
        guard let slot = stream(session.tag(ofStream: number)) else {
            session.consumeStream(number, bytes.count)
            return
        }
        takeBody(slot, bytes)
    }

    package func http2DataEnded(_ session: HTTP2Session, stream number: Int32) {
        guard let slot = stream(session.tag(ofStream: number)) else { return }
        takeEnd(slot)
    }

    package func http2Frame(_ session: HTTP2Session, _ frame: HTTP2FrameKind, length: Int) {
        guard let slot = current, !slot.value.multiplex.budget.isExhausted else { return }
        slot.value.multiplex.budget.spend(
            frame, length: length, nowMicroseconds: state.value.nowMicroseconds)
        guard slot.value.multiplex.budget.isExhausted else { return }
        metrics.add(.floodsEnded)
        session.terminate(.enhanceYourCalm)
    }

    package func http2GoAway(_ session: HTTP2Session, lastStream: Int32) {}

    package func http2Closed(_ session: HTTP2Session, stream number: Int32, tag: UInt64, code: UInt32) {
        guard let slot = stream(tag) else { return }
        slot.value.stream.isClosed = true
        // A regular end is settled with the frames that carried it.
        if slot.value.stream.hasEnded { return }
        abandonStream(slot, .callerGone, isClosed: true)
    }

    package func http2BodyAvailable(tag: UInt64) -> HTTP2BodyState {
        guard let slot = stream(tag) else {
            return HTTP2BodyState(count: 0, isEnd: false, hasTrailers: false)
        }
        return HTTP2BodyState(
            count: slot.value.output.count, isEnd: slot.value.stream.answer == .ended,
            hasTrailers: !slot.value.stream.trailers.isEmpty)
    }

    package func http2TakeBody(tag: UInt64, _ count: Int, into frames: inout Block) {
        guard let slot = stream(tag) else { preconditionFailure("only a living stream has promised bytes") }
        frames.append(slot.value.output.span(0..<count))
        slot.value.output.consume(count)
        current?.value.multiplex.budget.earn(1)
        if slot.value.output.isEmpty { noteSent(slot) }
    }

    package func http2SubmitTrailers(_ session: HTTP2Session, stream number: Int32, tag: UInt64) {
        guard let slot = stream(tag) else { return }
        http2.submitTrailers(session, stream: number, slot.value.stream.trailers)
    }

    package func http2SideEnded(_ session: HTTP2Session, stream number: Int32, tag: UInt64) {
        guard let slot = stream(tag) else { return }
        slot.value.stream.hasEnded = true
        current?.value.multiplex.budget.earn(FrameBudget.pointsPerAnswer)
        noteSent(slot)
    }

    private func noteSent(_ slot: Slot<Downstream>) {
        guard !slot.value.stream.isNoted else { return }
        slot.value.stream.isNoted = true
        state.value.streamsSent.append(slot.reference)
    }
}
