import Configuration
import HTTPWire
import Reactor
import TLS

// From plaintext to the socket: everything that a turn has produced for a caller is encrypted once and sent
// with one system call. What the socket does not take waits, encrypted, in the connection's output block, and
// the upstream is not read until it is gone.

extension Worker {
    /// Makes what is written to the scratch block from here on this caller's.
    func claimOutput(_ slot: Slot<Downstream>) {
        if downstreamParts.value.owner == slot.reference { return }
        // Two parts of one caller could be sent in the wrong order, a part needs room, and records on the
        // wire are the last owner's: nobody else's may join them.
        if slot.value.hasUnsentOutput || wire.hasOutbound
            || toDownstream.value.count > HardLimits.deferredBytes
        {
            finishStep()
        }
        slot.value.hasUnsentOutput = true
        downstreamParts.value.open(for: slot.reference, at: toDownstream.value.count)
    }

    /// Encrypts and sends the scratch block.
    func flushDownstream() {
        repeat {
            sendSealedOutput()
            downstreamParts.value.seal(at: toDownstream.value.count)
        } while !downstreamParts.value.isEmpty
        toDownstream.value.clear()
    }

    private func sendSealedOutput() {
        while let part = downstreamParts.value.takeNext() {
            guard let slot = downstreams.lookup(part.owner), !slot.value.isDead else { continue }
            slot.value.hasUnsentOutput = false
            let block = toDownstream.value
            if slot.value.kind == .stream {
                translateAnswer(slot, block, part.range)
                continue
            }
            guard encrypt(slot, block.span(part.range)) else { continue }
            sendWire(slot)
            if !slot.value.isDead { afterOutput(slot) }
        }
    }

    /// Puts bytes onto the wire. False when the caller is lost.
    func encrypt(_ slot: Slot<Downstream>, _ bytes: Span<UInt8>) -> Bool {
        if bytes.isEmpty { return true }
        metrics.add(.bytesToDownstream, UInt64(bytes.count))
        guard slot.value.session.isOpen else {
            wire.outbound.append(bytes)
            return true
        }
        if slot.value.session.write(bytes) { return true }
        wire.clearOutbound()
        abandon(slot, .callerGone)
        return false
    }

    /// Sends plaintext that need not be copied first: whole records of a large body.
    func emitDirectly(_ slot: Slot<Downstream>, _ block: Block, _ range: Range<Int>) {
        claimOutput(slot)
        // What others wait to send must not meet this caller's records on the wire; records there are its
        // own.
        if !wire.hasOutbound { sendSealedOutput() }
        let pending = toDownstream.value
        let start = downstreamParts.value.start
        toDownstream.value.truncate(to: start)
        if slot.value.kind == .stream {
            translateAnswer(slot, pending, start..<pending.count)
            translateAnswer(slot, block, range)
            return
        }
        if encrypt(slot, pending.span(start..<pending.count)) { _ = encrypt(slot, block.span(range)) }
    }

    /// Sends what OpenSSL has produced for this connection, or keeps it until the socket takes it.
    func sendWire(_ slot: Slot<Downstream>) {
        guard wire.hasOutbound else { return }
        defer { wire.clearOutbound() }
        let ciphertext = wire.outbound
        var sent = 0
        if slot.value.output.isEmpty {
            switch Socket.send(slot.value.descriptor, ciphertext.readable) {
            case .bytes(let n): sent = n
            case .wouldBlock: break
            case .endOfStream, .failed:
                abandon(slot, .callerGone)
                return
            }
        }
        if sent == ciphertext.count { return }
        if slot.value.output.isEmpty {
            setTimer(slot, after: Int64(timeouts.body) * 1_000)
            slot.value.stallStartMicroseconds = state.value.nowMicroseconds
            slot.value.stallBytes = 0
        }
        pool.ensureRoom(for: ciphertext.count - sent, in: &slot.value.output)
        slot.value.output.append(ciphertext.span(sent..<ciphertext.count))
        updateInterest(slot)
    }

    /// The socket takes bytes again.
    func drainOutput(_ slot: Slot<Downstream>) {
        guard !slot.value.output.isEmpty else {
            updateInterest(slot)
            return
        }
        let block = slot.value.output
        switch Socket.send(slot.value.descriptor, block.readable) {
        case .bytes(let n):
            slot.value.output.consume(n)
            slot.value.stallBytes += Int64(n)
            if readsTooSlowly(slot) {
                abandon(slot, .callerGone)
                return
            }
            setTimer(slot, after: Int64(timeouts.body) * 1_000)
        case .wouldBlock:
            return
        case .endOfStream, .failed:
            abandon(slot, .callerGone)
            return
        }
        guard slot.value.output.isEmpty else { return }
        pool.give(&slot.value.output)
        rearmTimer(slot)
        updateInterest(slot)
        afterOutput(slot)
        if slot.value.kind == .http2, !slot.value.isDead { markForFrames(slot) }
        if slot.value.isDead { return }
        if let exchange = exchanges.lookup(slot.value.exchange), !exchange.value.isDead {
            resumeUpstreamReading(exchange)
        }
        resumeLater(slot)
    }

    /// After a stall the timer goes back to what the phase wants.
    func rearmTimer(_ slot: Slot<Downstream>) {
        if slot.value.kind == .http2, slot.value.multiplex.isAwaitingHead {
            let elapsed = state.value.nowMicroseconds &- slot.value.phaseStartMicroseconds
            setTimer(slot, after: max(0, Int64(timeouts.head) * 1_000 &- elapsed))
            return
        }
        if slot.value.kind == .http2, slot.value.multiplex.streamCount > 0 {
            cancelTimer(slot)
            return
        }
        switch slot.value.request {
        case .head: setTimer(slot, after: idleWaitMicroseconds)
        case .body, .discarding: setTimer(slot, after: bodyWait(slot))
        case .awaitingKey, .complete, .tunnel: cancelTimer(slot)
        }
    }

    func afterOutput(_ slot: Slot<Downstream>) {
        if slot.value.isFinishing, slot.value.output.isEmpty { closeWithLinger(slot) }
    }

    /// Ends a connection between two requests: a goodbye, then the close.
    func closeGracefully(_ slot: Slot<Downstream>) {
        if slot.value.hasUnsentOutput { finishStep() }
        guard !slot.value.isDead else { return }
        if slot.value.output.isEmpty {
            closeWithLinger(slot)
        } else {
            slot.value.isFinishing = true
        }
    }

    /// Says goodbye, closes our side, and reads on for a moment: bytes that arrive on a closed socket reset
    /// the connection and can take the answer with them (RFC 9112 section 9.6).
    func closeWithLinger(_ slot: Slot<Downstream>) {
        guard !slot.value.isDead, slot.value.transport != .lingering else { return }
        if slot.value.kind == .stream {
            endAnswer(slot)
            return
        }
        endStreams(slot, .none)
        if slot.value.session.isOpen, slot.value.transport == .open {
            slot.value.session.closeNotify()
            sendWire(slot)
            if slot.value.isDead { return }
            guard slot.value.output.isEmpty else {
                // The goodbye waits for the socket, as the answer before it did.
                slot.value.isFinishing = true
                return
            }
        }
        if slot.value.inputEnded {
            abandon(slot, .none)
            return
        }
        Socket.shutdownWrite(slot.value.descriptor)
        slot.value.transport = .lingering
        slot.value.session.free()
        pool.give(&slot.value.input)
        pool.give(&slot.value.output)
        setTimer(slot, after: HardLimits.lingerMicroseconds)
        updateInterest(slot)
    }

    /// Closes a connection now. An exchange that is under way ends with it.
    func abandon(_ slot: Slot<Downstream>, _ reason: Reason) {
        guard !slot.value.isDead else { return }
        if slot.value.kind == .stream {
            abandonStream(slot, reason, isClosed: false)
            return
        }
        endStreams(slot, reason)
        slot.value.isDead = true
        if let exchange = exchanges.lookup(slot.value.exchange), !exchange.value.isDead {
            callerIsGone(exchange, reason)
        }
        cancelTimer(slot)
        Socket.close(slot.value.descriptor)
        slot.value.session.free()
        pool.give(&slot.value.input)
        pool.give(&slot.value.output)
        if downstreamParts.value.owner == slot.reference {
            toDownstream.value.truncate(to: downstreamParts.value.start)
            downstreamParts.value.abandonOpen()
            wire.clearOutbound()
        }
        state.value.deadDownstreams.append(slot.reference)
    }
}
