import Configuration
import HTTPWire
import Reactor

// One timer per caller connection and one per upstream connection. What a timer means follows from the state
// of its owner when it fires.

extension Worker {
    func setTimer(_ slot: Slot<Downstream>, after microseconds: Int64) {
        timers.set(slot.index, atMicroseconds: state.value.nowMicroseconds &+ microseconds)
    }

    func cancelTimer(_ slot: Slot<Downstream>) { timers.cancel(slot.index) }

    func setTimer(_ slot: Slot<UpstreamConnection>, after microseconds: Int64) {
        timers.set(
            downstreams.capacity &+ slot.index, atMicroseconds: state.value.nowMicroseconds &+ microseconds)
    }

    func cancelTimer(_ slot: Slot<UpstreamConnection>) { timers.cancel(downstreams.capacity &+ slot.index) }

    func runTimers() {
        repeat {
            timers.advance(
                toMicroseconds: state.value.nowMicroseconds, expired: &state.value.expiredTimers)
            for index in 0..<state.value.expiredTimers.count {
                expire(state.value.expiredTimers[index])
                finishStep()
            }
        } while !state.value.expiredTimers.isEmpty
        storeTick()
        sweepCalls()
        acceptorTick()
        if !snapshot.value.retired.isEmpty { releaseRetired() }
    }

    private func expire(_ timer: Int) {
        if timer < downstreams.capacity {
            if let slot = downstreams.occupant(at: timer), !slot.value.isDead { expire(slot) }
        } else if let slot = upstreamConnections.occupant(at: timer - downstreams.capacity),
            !slot.value.isDead
        {
            expireUpstream(slot)
        }
    }

    private func expire(_ slot: Slot<Downstream>) {
        if slot.value.kind == .stream, !slot.value.stream.isLingering,
            slot.value.isFinishing || !slot.value.output.isEmpty,
            let connection = downstreams.lookup(slot.value.stream.connection),
            !connection.value.output.isEmpty
        {
            // Its frames wait behind others on the wire, whose time is the connection's.
            setTimer(slot, after: Int64(timeouts.body) * 1_000)
            return
        }
        if slot.value.transport != .open || slot.value.isFinishing || !slot.value.output.isEmpty {
            // A handshake that does not end, a caller that does not read, a goodbye that is not answered.
            abandon(slot, .callerGone)
            return
        }
        if slot.value.kind == .http2 {
            expireHTTP2(slot)
            return
        }
        switch slot.value.request {
        case .head:
            if slot.value.input.isEmpty {
                closeGracefully(slot)
            } else {
                refuse(slot, .requestTimeout, closing: true)
            }
        case .body: bodyTimeout(slot)
        case .discarding: closeGracefully(slot)
        case .awaitingKey, .complete, .tunnel: break
        }
    }

    private func bodyTimeout(_ slot: Slot<Downstream>) {
        guard let exchange = exchanges.lookup(slot.value.exchange), !exchange.value.isDead else { return }
        // The upstream takes no more: its own timer runs, and ends the call as its failure.
        if writableUpstream(exchange) == nil { return }
        failExchange(exchange, .requestTimeout)
    }

    /// Whether a caller takes its answer more slowly than a body may come, counted from when it stopped.
    func readsTooSlowly(_ slot: Slot<Downstream>) -> Bool {
        let elapsed = state.value.nowMicroseconds &- slot.value.stallStartMicroseconds
        let grace = Int64(timeouts.body) * 1_000
        guard elapsed > grace else { return false }
        return slot.value.stallBytes < (elapsed / 1_000_000) * Int64(timeouts.bodyRate)
    }

    /// Whether a body is one of messages: nobody can say so of a route whose upstream does not take them.
    private func sendsMessages(_ slot: Slot<Downstream>) -> Bool {
        guard slot.value.kind == .stream, let exchange = exchanges.lookup(slot.value.exchange) else {
            return false
        }
        return exchange.value.isGRPC && upstreams[Int(exchange.value.upstream)].usesHTTP2
    }

    /// How long the next bytes of a request's body may take, in microseconds. Messages of gRPC come when
    /// there is something to say: their silence is that of other streams.
    func bodyWait(_ slot: Slot<Downstream>) -> Int64 {
        guard sendsMessages(slot), let exchange = exchanges.lookup(slot.value.exchange) else {
            return Int64(timeouts.body) * 1_000
        }
        let chosen = exchange.value.idleTimeoutMicroseconds
        return chosen > 0 ? chosen : HardLimits.streamIdleMicroseconds
    }

    /// The caller has the time of a body from here on.
    func timeBody(_ slot: Slot<Downstream>) {
        slot.value.phaseStartMicroseconds = state.value.nowMicroseconds
        slot.value.phaseBytes = 0
        if slot.value.output.isEmpty { setTimer(slot, after: bodyWait(slot)) }
    }

    /// Whether a body comes too slowly to be let in: `body_rate` bytes a second on average, once the first
    /// `body` period is over. Messages of gRPC have no rate, only a longest silence.
    func isTooSlow(_ slot: Slot<Downstream>) -> Bool {
        let elapsed = state.value.nowMicroseconds &- slot.value.phaseStartMicroseconds
        guard elapsed > Int64(timeouts.body) * 1_000, !sendsMessages(slot) else { return false }
        return slot.value.phaseBytes < (elapsed / 1_000_000) * Int64(timeouts.bodyRate)
    }
}
