import Configuration
import HTTPWire
import Reactor
import TLS

extension Worker {
    /// - Parameter index: which of the sockets has callers waiting; the event may be older than a reload.
    func acceptConnections(on sockets: [Descriptor], _ index: Int, isPlaintextPort: Bool) {
        guard index < sockets.count else { return }
        let socket = sockets[index]
        let count =
            state.value.wasBusyShakingHands ? HardLimits.acceptsPerBusyTurn : HardLimits.acceptsPerTurn
        for _ in 0..<count {
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
        noteHandshake(slot)
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
        if isAccepting { watchListeners(.read) }
    }

    /// Whether new callers are taken: neither memory nor descriptors are short.
    var isAccepting: Bool { state.value.pressure == .none && state.value.acceptsAgainMicroseconds == 0 }

    func watchListeners(_ interest: Interest) {
        guard state.value.hasListeners else { return }
        for (index, socket) in snapshot.value.listeners.https.enumerated() {
            let reference = SlotReference(index: index, generation: 0)
            poller.modify(socket, token: Token(.listener, reference).rawValue, interest)
        }
        for (index, socket) in snapshot.value.listeners.plaintext.enumerated() {
            let reference = SlotReference(index: index, generation: 0)
            poller.modify(socket, token: Token(.plaintextListener, reference).rawValue, interest)
        }
    }

    /// Takes every caller whose connection the kernel has completed, then closes the socket: what waits at a
    /// socket that closes is reset.
    func takeWaiting(at socket: Descriptor, isPlaintextPort: Bool) {
        while case .accepted(let descriptor, let peer) = Socket.accept(on: socket) {
            open(descriptor, peer, isPlaintextPort: isPlaintextPort)
        }
        poller.remove(socket)
        Socket.close(socket)
    }

    func beginDrain() {
        state.value.isDraining = true
        for index in 0..<downstreams.highWater {
            guard let slot = downstreams.occupant(at: index), !slot.value.isDead else { continue }
            if slot.value.kind == .http2 {
                drainHTTP2(slot)
                continue
            }
            // Idle callers are told when they next ask. Once the listeners have closed they have a moment to.
            if slot.value.kind == .http1, slot.value.transport == .open, slot.value.request == .head,
                slot.value.input.isEmpty, slot.value.output.isEmpty, !slot.value.hasUnsentOutput,
                !slot.value.isFinishing, !state.value.hasListeners
            {
                setTimer(slot, after: HardLimits.drainIdleMicroseconds)
            }
        }
    }

    /// Lets the sockets go to a process that holds them too.
    func releaseListeners() {
        guard state.value.hasListeners else { return }
        state.value.hasListeners = false
        for socket in snapshot.value.listeners.https + snapshot.value.listeners.plaintext {
            poller.remove(socket)
            Socket.close(socket)
        }
        snapshot.value.listeners = Listeners()
        beginDrain()
    }

    func closeListeners() {
        guard state.value.hasListeners else { return }
        state.value.hasListeners = false
        for socket in snapshot.value.listeners.https { takeWaiting(at: socket, isPlaintextPort: false) }
        for socket in snapshot.value.listeners.plaintext { takeWaiting(at: socket, isPlaintextPort: true) }
        snapshot.value.listeners = Listeners()
        beginDrain()
    }
}
