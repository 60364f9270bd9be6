import Configuration
package import HTTP2
import HTTPWire
package import Reactor

// What the engine tells while frames are read and written, handed to whose connection it is: a caller's or an
// upstream's. Nothing is sent, received or freed from here; what follows waits in the worker's queues.

extension Worker {
    /// Whether frames wait to be sent.
    var hasFrames: Bool { !state.value.framesQueue.isEmpty || !state.value.upstreamFramesQueue.isEmpty }

    /// Sends the frames of all connections that have some.
    func sendFrames() {
        guard hasFrames else { return }
        var index = 0
        while index < state.value.upstreamFramesQueue.count {
            let reference = state.value.upstreamFramesQueue[index]
            index += 1
            guard let connection = upstreamConnections.lookup(reference), !connection.value.isDead else {
                continue
            }
            connection.value.multiplex.isQueued = false
            sendFrames(connection)
        }
        state.value.upstreamFramesQueue.removeAll(keepingCapacity: true)
        index = 0
        while index < state.value.framesQueue.count {
            let reference = state.value.framesQueue[index]
            index += 1
            guard let slot = downstreams.lookup(reference), !slot.value.isDead else { continue }
            slot.value.multiplex.isQueued = false
            sendFrames(slot)
        }
        state.value.framesQueue.removeAll(keepingCapacity: true)
    }

    /// The caller's connection whose frames are at work.
    private var current: Slot<Downstream>? {
        guard let slot = downstreams.lookup(state.value.multiplexed), !slot.value.isDead else { return nil }
        return slot
    }

    /// The upstream's connection whose frames are at work.
    private var currentUpstream: Slot<UpstreamConnection>? {
        guard let slot = upstreamConnections.lookup(state.value.multiplexedUpstream), !slot.value.isDead
        else { return nil }
        return slot
    }

    private func stream(_ tag: UInt64) -> Slot<Downstream>? {
        guard tag != 0, Token(rawValue: tag).kind == .downstream,
            let slot = downstreams.lookup(Token(rawValue: tag).reference), !slot.value.isDead
        else { return nil }
        return slot
    }

    private func upstreamStream(_ tag: UInt64) -> Slot<UpstreamConnection>? {
        guard tag != 0, Token(rawValue: tag).kind == .upstream,
            let slot = upstreamConnections.lookup(Token(rawValue: tag).reference), !slot.value.isDead
        else { return nil }
        return slot
    }
}

extension Worker: HTTP2Owner {
    package func http2Head(
        _ session: HTTP2Session, stream number: Int32, _ kind: HTTP2HeadKind, endsStream: Bool
    ) {
        if let connection = current {
            if case .request = kind {
                openStream(connection, number, endsStream: endsStream)
            } else if let slot = stream(session.tag(ofStream: number)) {
                takeTrailers(slot, endsStream: endsStream)
            }
        } else if let slot = upstreamStream(session.tag(ofStream: number)) {
            takeAnswerHead(slot, endsStream: endsStream)
        }
    }

    package func http2Data(_ session: HTTP2Session, stream number: Int32, _ bytes: Span<UInt8>) {
        let tag = session.tag(ofStream: number)
        if let connection = current {
            // A stream that stalls keeps its own window shut, not its neighbours', as long as memory allows.
            connection.value.multiplex.heldBytes += bytes.count
            if pool.bytesOutstanding < HardLimits.bodyBytesHeld {
                reopenConnection(connection, connection.value.multiplex.heldBytes)
            }
            if let slot = stream(tag) {
                connection.value.multiplex.budget.earn(1)
                takeBody(slot, bytes)
            } else {
                session.consumeStream(number, bytes.count)
            }
        } else {
            session.consumeConnection(bytes.count)
            if let slot = upstreamStream(tag) {
                takeAnswerBody(slot, bytes)
            } else {
                session.consumeStream(number, bytes.count)
            }
        }
    }

    package func http2DataEnded(_ session: HTTP2Session, stream number: Int32) {
        let tag = session.tag(ofStream: number)
        if let slot = stream(tag) {
            takeEnd(slot)
        } else if let slot = upstreamStream(tag) {
            takeAnswerEnd(slot)
        }
    }

    package func http2Settings(_ session: HTTP2Session) {
        guard let connection = currentUpstream, !connection.value.multiplex.hasSettings else { return }
        connection.value.multiplex.hasSettings = true
    }

    package func http2GoAway(_ session: HTTP2Session, lastStream: Int32) {
        guard let connection = currentUpstream else { return }
        connection.value.multiplex.takesNoMore = true
        connection.value.multiplex.isLeaving = true
    }

    package func http2Closed(_ session: HTTP2Session, stream number: Int32, tag: UInt64, code: UInt32) {
        if let slot = stream(tag) {
            slot.value.stream.isClosed = true
            // A regular end is settled with the frames that carried it.
            if !slot.value.stream.hasEnded || slot.value.stream.isLingering {
                if isFairReset(slot) {
                    current?.value.multiplex.budget.earn(FrameBudget.pointsPerFairReset)
                }
                abandonStream(slot, slot.value.stream.hasEnded ? .none : .callerGone, isClosed: true)
            }
        } else if let slot = upstreamStream(tag) {
            upstreamStreamClosed(slot, code)
        }
    }

    private func isFairReset(_ slot: Slot<Downstream>) -> Bool {
        let age = state.value.nowMicroseconds &- slot.value.arrivedMicroseconds
        return slot.value.stream.answer != .head
            || slot.value.arrivedMicroseconds > 0 && age >= FrameBudget.fairResetMicroseconds
    }

    package func http2BodyAvailable(tag: UInt64) -> HTTP2BodyState {
        if let slot = stream(tag) {
            // What is left of a tunnel that has ended takes the end along.
            let isEnd =
                slot.value.stream.answer == .ended
                || slot.value.stream.answer == .raw && slot.value.isFinishing
            let count = slot.value.output.count
            slot.value.stream.isDeferred = count == 0 && !isEnd
            return HTTP2BodyState(
                count: count, isEnd: isEnd,
                hasTrailers: !slot.value.stream.trailers.isEmpty)
        }
        if let slot = upstreamStream(tag) {
            return HTTP2BodyState(
                count: slot.value.output.count, isEnd: slot.value.stream.request == .ended,
                hasTrailers: !slot.value.stream.trailers.isEmpty)
        }
        return HTTP2BodyState(count: 0, isEnd: false, hasTrailers: false)
    }

    package func http2TakeBody(tag: UInt64, _ count: Int, into frames: inout Block) -> Bool {
        if let slot = stream(tag) {
            frames.append(slot.value.output.span(0..<count))
            slot.value.output.consume(count)
            if slot.value.output.isEmpty || count >= FrameBudget.cutFrameBytesMin {
                current?.value.multiplex.budget.earn(FrameBudget.pointsPerBodyFrame)
            }
            slot.value.stallBytes += Int64(count)
            if slot.value.output.isEmpty {
                noteSent(slot)
            } else if !readsTooSlowly(slot) {
                setTimer(slot, after: Int64(timeouts.body) * 1_000)
            }
        } else if let slot = upstreamStream(tag) {
            frames.append(slot.value.output.span(0..<count))
            slot.value.output.consume(count)
            state.value.upstreamStreamsSent.append(slot.reference)
        } else {
            return false
        }
        return true
    }

    package func http2SubmitTrailers(_ session: HTTP2Session, stream number: Int32, tag: UInt64) {
        if let slot = stream(tag) {
            http2.submitTrailers(session, stream: number, slot.value.stream.trailers)
        } else if let slot = upstreamStream(tag) {
            http2.submitTrailers(session, stream: number, slot.value.stream.trailers)
        }
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
