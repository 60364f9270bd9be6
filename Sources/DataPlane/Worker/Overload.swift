import Configuration
import HTTPWire
import Reactor
import TLS

// What is done before there is too much of something. Whoever has work under way finishes it; what is turned
// away is counted, and answered where there is somebody to answer.
//
// Handshakes: a turn takes few steps of them, for each costs as much as ten calls: open callers do not wait
// for a storm of new ones. The oldest one that has not ended makes room for the newest. A good caller needs
// milliseconds, so what is pushed out is what holds a slot open on purpose.
// Memory: over the watermark no connection is accepted, and if that is not enough idle ones are closed.
// Upstreams: a call that finds as many under way as may be waits for a moment, in order of arrival.

extension Worker {
    // MARK: Handshakes

    /// A turn begins.
    func beginHandshakes() {
        state.value.wasBusyShakingHands = state.value.handshakeSteps > HardLimits.handshakeStepsPerTurn
        state.value.handshakeSteps = 0
    }

    /// Whether a handshake may go on in this turn; if not, the poller reports it again in the next.
    func takeHandshakeStep() -> Bool {
        state.value.handshakeSteps += 1
        return state.value.handshakeSteps <= HardLimits.handshakeStepsPerTurn
    }

    /// Notes a connection whose handshake begins.
    func noteHandshake(_ slot: Slot<Downstream>) {
        dropEndedHandshakes()
        if state.value.handshakes.isFull { evictOldestHandshake() }
        state.value.handshakes.append(slot.reference)
        state.value.openHandshakes += 1
        slot.value.isShakingHands = true
        while state.value.openHandshakes > handshakesMax, state.value.handshakes.count > 1 {
            evictOldestHandshake()
        }
    }

    /// A connection is open for calls, or gone.
    func handshakeEnded(_ slot: Slot<Downstream>) {
        guard slot.value.isShakingHands else { return }
        slot.value.isShakingHands = false
        state.value.openHandshakes -= 1
    }

    private func dropEndedHandshakes() {
        while let oldest = state.value.handshakes.oldest {
            if let slot = downstreams.lookup(oldest), slot.value.isShakingHands { return }
            _ = state.value.handshakes.removeFirst()
        }
    }

    private func evictOldestHandshake() {
        guard let oldest = state.value.handshakes.removeFirst(), let slot = downstreams.lookup(oldest),
            slot.value.isShakingHands
        else { return }
        metrics.add(.handshakesEvicted)
        handshakeEnded(slot)
        abandon(slot, .overloaded)
    }

    // MARK: Memory

    /// What the control thread says of the process's memory.
    func setPressure(_ pressure: MemoryPressure) {
        let before = state.value.pressure
        state.value.pressure = pressure
        if (before == .none) != (pressure == .none), state.value.acceptsAgainMicroseconds == 0 {
            watchListeners(pressure == .none ? .read : Interest.none)
        }
        guard pressure == .high else { return }
        for index in 0..<downstreams.highWater {
            guard let slot = downstreams.occupant(at: index), !slot.value.isDead, isIdle(slot) else {
                continue
            }
            metrics.add(.idleClosedForMemory)
            if slot.value.kind == .http2 { expireHTTP2(slot) } else { closeGracefully(slot) }
            endStep()
        }
    }

    /// Whether a caller's connection is between two requests.
    private func isIdle(_ slot: Slot<Downstream>) -> Bool {
        guard slot.value.transport == .open, !slot.value.isFinishing else { return false }
        switch slot.value.kind {
        case .http1: return slot.value.request == .head && slot.value.input.isEmpty
        case .http2: return slot.value.multiplex.streamCount == 0 && !slot.value.multiplex.isAwaitingHead
        case .stream: return false
        }
    }

    // MARK: Upstreams

    /// Has a call wait until its upstream has room for it, or turns it away when too many wait already, or
    /// when it has waited long enough.
    func waitForUpstream(_ exchange: Slot<Exchange>) {
        let number = Int(exchange.value.upstream)
        guard Int(upstreams[number].waiting.count) < upstreams[number].queueMax,
            !hasWaitedEnough(exchange),
            addWaiter(exchange.reference, to: &upstreams[number].waiting)
        else {
            metrics.add(.upstreamQueueOverflows)
            failExchange(exchange, .overloaded, retryAfter: 1)
            return
        }
        if exchange.value.queuedMicroseconds == 0 {
            exchange.value.queuedMicroseconds = state.value.nowMicroseconds
            metrics.add(.upstreamQueued)
        }
        exchange.value.phase = .connecting
        exchange.value.attempts -= 1
        // It has not been tried yet, so nothing speaks against it.
        if exchange.value.attempts == 0 { exchange.value.endpoint = -1 }
        state.value.queuedCalls += 1
    }

    private func hasWaitedEnough(_ exchange: Slot<Exchange>) -> Bool {
        let since = exchange.value.queuedMicroseconds
        let wait = upstreams[Int(exchange.value.upstream)].queueTimeoutMicroseconds
        return since > 0 && state.value.nowMicroseconds - since >= wait
    }

    /// Lets calls go on whose upstream has a connection for them, and answers those that have waited long
    /// enough. At the end of a turn: whatever frees a connection has ended by then.
    func serveQueues() {
        guard state.value.queuedCalls > 0 else { return }
        for number in 0..<upstreams.count where upstreams[number].waiting.count > 0 {
            serveQueue(number)
        }
    }

    private func serveQueue(_ number: Int) {
        // Once each: a call whose own endpoint is still full stands in the queue again.
        for _ in 0..<upstreams[number].waiting.count {
            let reference = waiters[Int(upstreams[number].waiting.head)].reference
            guard let exchange = exchanges.lookup(reference), !exchange.value.isDead else {
                dequeue(number)
                continue
            }
            if hasRoom(number) {
                dequeue(number)
                startUpstream(exchange)
            } else if hasWaitedEnough(exchange) {
                dequeue(number)
                metrics.add(.upstreamQueueOverflows)
                failExchange(exchange, .overloaded, retryAfter: 1)
            } else {
                return
            }
            endStep()
        }
    }

    private func dequeue(_ number: Int) {
        _ = removeWaiter(from: &upstreams[number].waiting)
        state.value.queuedCalls -= 1
    }

    private func hasRoom(_ number: Int) -> Bool {
        for place in 0..<upstreams[number].endpointCount {
            let endpoint = endpoints[upstreams[number].member(place)]
            // Calls share connections of HTTP/2: there they are counted themselves.
            let isShared = upstreams[number].usesHTTP2 && !endpoint.declinesHTTP2
            let count = isShared ? endpoint.outstanding : endpoint.connections
            if endpoint.idleCount > 0 || count < upstreams[number].connectionsMax { return true }
        }
        return upstreams[number].endpointCount == 0
    }
}

/// How far the process's memory is over its watermark.
package enum MemoryPressure: Sendable {
    case none
    /// No connection is accepted.
    case raised
    /// Idle connections are closed as well.
    case high
}
