import Configuration
import HTTPWire
import Reactor
import TLS

// From the socket to plaintext. One `recv` takes what has arrived, OpenSSL decrypts it behind whatever was
// stashed, and the requests are read from there.

extension Worker {
    func handleDownstream(_ event: Event, _ slot: Slot<Downstream>) {
        if slot.value.isShakingHands, !takeHandshakeStep() { return }
        if slot.value.hasUnsentOutput {
            finishStep()
            if slot.value.isDead { return }
        }
        if event.isWritable {
            drainOutput(slot)
            if slot.value.isDead { return }
        }
        if event.isReadable || event.isPeerClosed || event.isHangup {
            receive(slot, isHangup: event.isHangup)
        }
    }

    private func receive(_ slot: Slot<Downstream>, isHangup: Bool) {
        received.value.clear()
        let limit = slot.value.transport == .greeting ? HardLimits.greetingBytes : HardLimits.readBytes
        switch Socket.receive(slot.value.descriptor, into: &received.value, limit: limit) {
        case .wouldBlock:
            // Broken in both directions and nothing to read: reading will never report it.
            if isHangup { abandon(slot, .callerGone) }
        case .failed:
            abandon(slot, .callerGone)
        case .endOfStream:
            // Half-closed and then reset: the kernel tells of the end again and again, never of the reset.
            if isHangup { abandon(slot, .callerGone) } else { endInput(slot) }
        case .bytes:
            take(slot)
        }
    }

    private func take(_ slot: Slot<Downstream>) {
        switch slot.value.transport {
        case .lingering:
            return
        case .greeting:
            let first = slot.value.input.isEmpty ? received.value.readable[0] : slot.value.input.readable[0]
            guard !slot.value.isPlaintextPort, first == 0x16 else {
                refusePlaintext(slot)
                return
            }
            guard gatherHello(slot) else { return }
            guard let session = server.makeSession() else {
                abandon(slot, .overloaded)
                return
            }
            slot.value.session = session
            slot.value.transport = .handshaking
            wire.setInbound(received.value)
            shakeHands(slot)
        case .handshaking:
            wire.setInbound(received.value)
            shakeHands(slot)
        case .open:
            wire.setInbound(received.value)
            loadStash(slot)
            decrypt(slot)
        }
    }

    /// Keeps the beginning of a handshake until its first record is whole: a session takes 70 KiB, which
    /// whoever sends half of a record does not get.
    ///
    /// - Returns: whether the record is in `received`.
    private func gatherHello(_ slot: Slot<Downstream>) -> Bool {
        if slot.value.input.isEmpty, Self.isWholeRecord(received.value.readable) { return true }
        pool.ensureRoom(for: received.value.count, in: &slot.value.input)
        _ = slot.value.input.moveContents(from: &received.value)
        guard Self.isWholeRecord(slot.value.input.readable) else { return false }
        received.value.clear()
        _ = received.value.moveContents(from: &slot.value.input)
        pool.give(&slot.value.input)
        return true
    }

    /// Whether the bytes hold a record (RFC 8446 section 5.1), or one that is too long to be waited for.
    private static func isWholeRecord(_ bytes: Span<UInt8>) -> Bool {
        guard bytes.count >= 5 else { return false }
        let length = Int(bytes[3]) << 8 | Int(bytes[4])
        return bytes.count >= 5 + length || length > HardLimits.greetingBytes
    }

    private func shakeHands(_ slot: Slot<Downstream>) {
        switch slot.value.session.handshake() {
        case .failed:
            metrics.add(.handshakesFailed)
            // The alert that says why.
            sendWire(slot)
            if !slot.value.isDead { closeWithLinger(slot) }
        case .wantsInput:
            sendWire(slot)
        case .done:
            countHandshake(slot)
            handshakeEnded(slot)
            slot.value.transport = .open
            setTimer(slot, after: idleWaitMicroseconds)
            sendWire(slot)
            if slot.value.isDead { return }
            if slot.value.session.speaksHTTP2 {
                startHTTP2(slot)
                if slot.value.isDead { return }
            }
            plain.value.clear()
            // A caller may send its first request together with the end of its handshake.
            if wire.inboundRemaining > 0 || slot.value.session.hasPendingPlaintext { decrypt(slot) }
        }
    }

    private func countHandshake(_ slot: Slot<Downstream>) {
        switch (slot.value.session.version, slot.value.session.isResumed) {
        case (.v12, false): metrics.add(.handshakesTLS12Full)
        case (.v12, true): metrics.add(.handshakesTLS12Resumed)
        case (.v13, false): metrics.add(.handshakesTLS13Full)
        case (.v13, true): metrics.add(.handshakesTLS13Resumed)
        }
    }

    /// Puts what was stashed of a caller at the front of the plaintext scratch.
    private func loadStash(_ slot: Slot<Downstream>) {
        plain.value.clear()
        guard slot.value.input.isAllocated else { return }
        _ = plain.value.moveContents(from: &slot.value.input)
        // A window of HTTP/2 in tiny frames, each a chunk, is longer than the scratch block: `stash` keeps
        // the rest.
        if slot.value.input.isEmpty { pool.give(&slot.value.input) }
    }

    private func decrypt(_ slot: Slot<Downstream>) {
        var hasEnded = false
        let before = plain.value.count
        reading: while plain.value.freeCount > 0 {
            switch slot.value.session.read(into: &plain.value) {
            case .bytes:
                if wire.inboundRemaining == 0, !slot.value.session.hasPendingPlaintext { break reading }
            case .wantsInput:
                break reading
            case .closed:
                hasEnded = true
                break reading
            case .failed:
                // Whatever made a record undecipherable, nothing behind it can be trusted.
                sendWire(slot)
                if !slot.value.isDead { abandon(slot, .badRequest) }
                return
            }
        }
        // A key update may have to be answered.
        sendWire(slot)
        if slot.value.isDead { return }
        metrics.add(.bytesFromDownstream, UInt64(plain.value.count - before))
        // A record that comes byte by byte is a head that does: it has the time of one, counted once.
        if plain.value.count == before, slot.value.kind == .http1, slot.value.request == .head,
            slot.value.phaseStartMicroseconds == 0, !slot.value.isFinishing
        {
            slot.value.phaseStartMicroseconds = state.value.nowMicroseconds
            setTimer(slot, after: Int64(timeouts.head) * 1_000)
        }
        if slot.value.kind == .http2 { feedHTTP2(slot) } else { readRequests(slot) }
        if hasEnded, !slot.value.isDead { endInput(slot) }
    }

    /// Goes on with a caller whose exchange has ended, whose look-up was answered, or whose upstream takes
    /// bytes again.
    func resume(_ slot: Slot<Downstream>) {
        guard slot.value.transport == .open, !slot.value.isFinishing, slot.value.kind != .http2 else {
            return
        }
        loadStash(slot)
        if slot.value.stream.isHeadTooLarge {
            refuseHeadTooLarge(slot)
        } else {
            readRequests(slot)
        }
    }

    /// Has `resume` called at the end of the turn.
    func resumeLater(_ slot: Slot<Downstream>) {
        guard !slot.value.isQueued, !slot.value.isDead else { return }
        slot.value.isQueued = true
        state.value.resumeQueue.append(slot.reference)
    }

    /// Keeps what could not be used and decides what the connection waits for.
    func stash(_ slot: Slot<Downstream>) {
        if slot.value.input.isAllocated {
            // Behind what is left of the scratch block stands what did not fit into it.
            if plain.value.isEmpty { resumeLater(slot) }
            var whole = pool.take(atLeast: plain.value.count + slot.value.input.count)
            _ = whole.moveContents(from: &plain.value)
            whole.append(slot.value.input.readable)
            pool.give(&slot.value.input)
            slot.value.input = whole
        } else if !plain.value.isEmpty {
            slot.value.input = pool.take(atLeast: max(plain.value.count, 4_096))
            _ = slot.value.input.moveContents(from: &plain.value)
        }
        updateInterest(slot)
    }

    /// Watches for bytes only while there is room for them, and for room only while bytes wait.
    func updateInterest(_ slot: Slot<Downstream>) {
        guard !slot.value.isDead, slot.value.kind != .stream else { return }
        var wanted = Interest.none
        let isWaiting = slot.value.request != .head
        let isFull =
            isWaiting && slot.value.input.count >= HardLimits.stashBytes
            || !slot.value.output.isEmpty && slot.value.transport == .open
        if !slot.value.inputEnded, !isFull { wanted = wanted.adding(.read) }
        if !slot.value.output.isEmpty { wanted = wanted.adding(.write) }
        guard wanted.rawValue != slot.value.interest.rawValue else { return }
        slot.value.interest = wanted
        poller.modify(
            slot.value.descriptor, token: Token(.downstream, slot.reference).rawValue, wanted)
    }

    /// The caller sends no more. What it has asked for in full is still answered (RFC 9112 section 9.6).
    private func endInput(_ slot: Slot<Downstream>) {
        slot.value.inputEnded = true
        if slot.value.hasUnsentOutput {
            finishStep()
            if slot.value.isDead { return }
        }
        guard slot.value.transport == .open, !slot.value.isFinishing, slot.value.kind == .http1 else {
            abandon(slot, .callerGone)
            return
        }
        switch slot.value.request {
        case .complete where !slot.value.exchange.isNone, .awaitingKey:
            // A caller that leaves a stream of events is gone, and so is its upstream's reason to go on.
            if let exchange = exchanges.lookup(slot.value.exchange), exchange.value.isEventStream {
                abandon(slot, .callerGone)
                return
            }
            if slot.value.input.isEmpty { slot.value.closesAfterAnswer = true }
            updateInterest(slot)
        case .tunnel:
            updateInterest(slot)
            resumeLater(slot)
        case .body where !slot.value.input.isEmpty:
            // Its upstream does not take it yet: `takeBody` looks whether it is whole.
            updateInterest(slot)
        case .head where !slot.value.input.isEmpty:
            // Requests that wait for answers before them to be taken, or for the end of this turn.
            updateInterest(slot)
            resumeLater(slot)
        default:
            if slot.value.exchange.isNone, !slot.value.output.isEmpty {
                slot.value.isFinishing = true
                updateInterest(slot)
            } else {
                abandon(slot, .callerGone)
            }
        }
    }
}
