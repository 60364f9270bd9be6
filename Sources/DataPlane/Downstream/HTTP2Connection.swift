import Configuration
import HTTP2
import HTTPWire
import Reactor
import TLS

// A caller's connection that speaks HTTP/2. Its frames are read here and become streams; a stream is a caller
// like any other, met by the same gate and the same exchange (see HTTP2Stream.swift). Frames of all streams
// leave together at the end of a step.

/// What a connection keeps of HTTP/2.
struct MultiplexState {
    var session = HTTP2Session()
    var firstStream = SlotReference.none
    var streamCount = 0
    var walker = FrameWalker()
    var budget = FrameBudget()
    /// Whether the caller has been told that the connection will take no further streams.
    var isShutdownAnnounced = false
    /// Whether the connection already waits in the worker's queue of frames.
    var isQueued = false
    /// Whether the preface or a head has begun, and has its time to end.
    var isAwaitingHead = true
    /// Body bytes whose window on the connection has not been opened again yet.
    var heldBytes = 0
    /// When the caller's header table last got the names of fields whose values never come again.
    var namesTaughtMicroseconds = -HardLimits.namesMicroseconds
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
        slot.value.phaseStartMicroseconds = state.value.nowMicroseconds
        setTimer(slot, after: Int64(timeouts.head) * 1_000)
        markForFrames(slot)
        if state.value.isDraining {
            slot.value.multiplex.isShutdownAnnounced = true
            session.announceShutdown()
        }
    }

    /// Takes the plaintext of this step.
    func feedHTTP2(_ slot: Slot<Downstream>) {
        let block = plain.value
        guard !block.isEmpty else { return }
        guard slot.value.multiplex.session.isOpen else {
            plain.value.clear()
            return
        }
        guard countFrames(slot, block) else {
            plain.value.clear()
            return
        }
        state.value.multiplexed = slot.reference
        let goesOn = http2.receive(slot.value.multiplex.session, block.readable)
        state.value.multiplexed = .none
        plain.value.clear()
        let isFlood = http2.hasMetFlood
        if isFlood { metrics.add(.floodsEnded) }
        if !goesOn {
            // No frame of it can be trusted; the caller is told so before the connection closes.
            slot.value.multiplex.session.terminate(isFlood ? .enhanceYourCalm : .protocolError)
            slot.value.isFinishing = true
        }
        timeHead(slot)
        markForFrames(slot)
    }

    /// A head that has begun has one time to end, whatever else the connection does: nothing else may come
    /// on it before (RFC 9113 section 4.3).
    private func timeHead(_ slot: Slot<Downstream>) {
        let isAwaiting = slot.value.multiplex.walker.isAwaitingHead
        guard isAwaiting != slot.value.multiplex.isAwaitingHead, !slot.value.isDead else { return }
        slot.value.multiplex.isAwaitingHead = isAwaiting
        slot.value.phaseStartMicroseconds = state.value.nowMicroseconds
        if isAwaiting || slot.value.output.isEmpty { rearmTimer(slot) }
    }

    /// Holds what has arrived against what the connection may ask for. False when it was too much.
    private func countFrames(_ slot: Slot<Downstream>, _ block: Block) -> Bool {
        let bytes = block.readable
        var offset = 0
        while let frame = slot.value.multiplex.walker.next(bytes, &offset) {
            slot.value.multiplex.budget.spend(
                frame.kind, length: frame.length, nowMicroseconds: state.value.nowMicroseconds)
            let forbidden = slot.value.multiplex.walker.forbidden
            guard slot.value.multiplex.budget.isExhausted || forbidden != nil else { continue }
            if forbidden == nil { metrics.add(.floodsEnded) }
            slot.value.multiplex.session.terminate(forbidden ?? .enhanceYourCalm)
            slot.value.isFinishing = true
            markForFrames(slot)
            return false
        }
        return true
    }

    /// Has the connection's frames sent at the end of the step.
    func markForFrames(_ slot: Slot<Downstream>) {
        guard !slot.value.isDead, !slot.value.multiplex.isQueued else { return }
        slot.value.multiplex.isQueued = true
        state.value.framesQueue.append(slot.reference)
    }

    /// Sends the frames of a connection.
    func sendFrames(_ slot: Slot<Downstream>) {
        guard slot.value.transport == .open, slot.value.multiplex.session.isOpen else { return }
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

    /// A head has not ended, or a connection without streams has been quiet for too long.
    func expireHTTP2(_ slot: Slot<Downstream>) {
        guard slot.value.multiplex.streamCount == 0 || slot.value.multiplex.isAwaitingHead else { return }
        slot.value.multiplex.session.refuseFurtherStreams()
        slot.value.isFinishing = true
        markForFrames(slot)
    }

    /// The process ends: callers are told to go elsewhere, in two steps, so that no stream that is already
    /// under way is lost (RFC 9113 section 6.8).
    func drainHTTP2(_ slot: Slot<Downstream>) {
        guard slot.value.transport == .open else { return }
        if !slot.value.multiplex.isShutdownAnnounced {
            slot.value.multiplex.isShutdownAnnounced = true
            slot.value.multiplex.session.announceShutdown()
            markForFrames(slot)
        }
        // The second step, once the caller has had time to hear of the first.
        if !state.value.hasListeners, slot.value.multiplex.streamCount == 0 {
            setTimer(slot, after: HardLimits.drainIdleMicroseconds)
        }
    }

    /// The last stream of a connection has gone, or a first one has come.
    func streamCountChanged(_ slot: Slot<Downstream>) {
        if slot.value.multiplex.isAwaitingHead { return }
        if slot.value.multiplex.streamCount == 0 {
            setTimer(slot, after: idleWaitMicroseconds)
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
        http2.free(&slot.value.multiplex.session)
    }
}
