import Configuration
import HTTPWire
import Reactor
import TLS

extension Worker {
    func acceptConnections(on socket: Descriptor, isPlaintextPort: Bool) {
        for _ in 0..<HardLimits.acceptsPerTurn {
            switch Socket.accept(on: socket) {
            case .accepted(let descriptor, let peer):
                open(descriptor, peer, isPlaintextPort: isPlaintextPort)
            case .wouldBlock:
                return
            case .outOfDescriptors:
                // The connection stays in the kernel's queue; it is taken when another has closed.
                // Not watched meanwhile: a level-triggered listener would keep the loop spinning.
                metrics.add(.connectionsRefused)
                pauseAccepting()
                shared.report(
                    .error, "no file descriptors left: raise the limit (ulimit -n, LimitNOFILE)",
                    every: 60)
                return
            case .failed:
                return
            }
        }
    }

    private func open(_ descriptor: Descriptor, _ peer: SocketAddress, isPlaintextPort: Bool) {
        metrics.add(.connectionsAccepted)
        guard state.value.openConnections < connectionsMax else {
            metrics.add(.connectionsRefused)
            Socket.close(descriptor)
            return
        }
        let fresh = Downstream(descriptor: descriptor, peer: peer, isPlaintextPort: isPlaintextPort)
        guard let slot = downstreams.allocate(fresh) else {
            metrics.add(.connectionsRefused)
            Socket.close(descriptor)
            return
        }
        do {
            try poller.add(descriptor, token: Token(.downstream, slot.reference).rawValue, .read)
        } catch {
            metrics.add(.connectionsRefused)
            Socket.close(descriptor)
            downstreams.free(slot)
            return
        }
        state.value.openConnections += 1
        setTimer(slot, after: Int64(timeouts.handshake) * 1_000)
    }

    private func pauseAccepting() {
        state.value.acceptsAgainMicroseconds =
            state.value.nowMicroseconds + HardLimits.acceptPauseMicroseconds
        watchListeners(Interest.none)
    }

    /// Accepts again after a pause.
    func acceptorTick() {
        guard state.value.acceptsAgainMicroseconds > 0,
            state.value.nowMicroseconds >= state.value.acceptsAgainMicroseconds
        else { return }
        state.value.acceptsAgainMicroseconds = 0
        watchListeners(.read)
    }

    private func watchListeners(_ interest: Interest) {
        guard state.value.hasListeners else { return }
        poller.modify(listener, token: Token(.listener).rawValue, interest)
        if plaintextListener.isOpen {
            poller.modify(plaintextListener, token: Token(.plaintextListener).rawValue, interest)
        }
    }

    func beginDrain() {
        state.value.isDraining = true
        for index in 0..<downstreams.highWater {
            guard let slot = downstreams.occupant(at: index), !slot.value.isDead else { continue }
            if slot.value.kind == .http2 {
                drainHTTP2(slot)
                continue
            }
            // Idle callers are told when they next ask, or when the listeners close.
            if slot.value.kind == .http1, slot.value.transport == .open, slot.value.request == .head,
                slot.value.input.isEmpty,
                !state.value.hasListeners
            {
                closeGracefully(slot)
            }
        }
    }

    func closeListeners() {
        guard state.value.hasListeners else { return }
        state.value.hasListeners = false
        poller.remove(listener)
        Socket.close(listener)
        if plaintextListener.isOpen {
            poller.remove(plaintextListener)
            Socket.close(plaintextListener)
        }
        beginDrain()
    }
}
