package import Reactor

/// Why a blocking connection could not be made or used: one sentence without secrets.
package struct ConnectionProblem: Error, Sendable, Equatable {
    package let text: String
    package let isTimeout: Bool

    package init(_ text: String, isTimeout: Bool = false) {
        self.text = text
        self.isTimeout = isTimeout
    }
}

/// A client connection for threads that may wait: health checks, background commands, the command line.
///
/// Every call ends within the timeout it is given. Not for workers.
package final class BlockingConnection {
    private let descriptor: Descriptor
    private var session = TLSSession()
    private let wire: TLSWire?
    /// Holds OpenSSL's library context, which a session uses but does not keep alive.
    private var context: TLSClientContext?
    /// Allocated when nothing can be thrown any more before `deinit` may run.
    private var ciphertext = Block.none
    private static let ciphertextBytes = 32_768

    /// - Parameters:
    ///   - caPath: trust for TLS instead of the system's.
    ///   - serverName: the name that the certificate must have; nil is no TLS.
    ///   - protocols: what is offered over TLS, in order of preference (RFC 7301).
    package init(
        to address: SocketAddress, serverName: String?, caPath: String?, protocols: [String] = [],
        timeoutMilliseconds: Int
    ) throws(ConnectionProblem) {
        let opened: (descriptor: Descriptor, inProgress: Bool)
        do {
            opened = try Socket.connect(to: address)
        } catch {
            throw ConnectionProblem("cannot connect to \(address): \(error.reason)")
        }
        descriptor = opened.descriptor
        guard let serverName else {
            wire = nil
            ciphertext = .allocate(capacity: Self.ciphertextBytes)
            try finishConnecting("\(address)", timeoutMilliseconds)
            return
        }
        do {
            let wire = try TLSWire(outboundCapacity: 262_144)
            let context = try TLSClientContext(caPath: caPath, wire: wire, applicationProtocols: protocols)
            self.wire = wire
            self.context = context
            if let made = context.makeSession(serverName: serverName) { session = made }
        } catch {
            wire = nil
            throw ConnectionProblem(error.message)
        }
        ciphertext = .allocate(capacity: Self.ciphertextBytes)
        try finishConnecting("\(address)", timeoutMilliseconds)
        try shakeHands("\(address)", timeoutMilliseconds)
    }

    package init(toUnixPath path: String, timeoutMilliseconds: Int) throws(ConnectionProblem) {
        wire = nil
        do {
            descriptor = try Socket.connect(toUnixPath: path).descriptor
        } catch {
            throw ConnectionProblem("cannot connect to \(path): \(error.reason)")
        }
        ciphertext = .allocate(capacity: Self.ciphertextBytes)
        try finishConnecting(path, timeoutMilliseconds)
    }

    deinit {
        session.free()
        Socket.close(descriptor)
        ciphertext.deallocate()
    }

    /// Whether both sides have agreed on HTTP/2 over TLS.
    package var speaksHTTP2: Bool { session.speaksHTTP2 }

    private func finishConnecting(_ name: String, _ timeout: Int) throws(ConnectionProblem) {
        guard Readiness.wait(descriptor, forWriting: true, timeoutMilliseconds: timeout) else {
            throw ConnectionProblem("\(name) does not answer", isTimeout: true)
        }
        let code = Socket.pendingError(descriptor)
        guard code == 0 else {
            let reason = SystemError(code: code, operation: "connect").reason
            throw ConnectionProblem("cannot connect to \(name): \(reason)")
        }
    }

    private func shakeHands(_ name: String, _ timeout: Int) throws(ConnectionProblem) {
        guard let wire else { return }
        let deadline = MonotonicClock.nowMicroseconds() + Int64(timeout) * 1_000
        wire.setInbound(.none)
        while true {
            let progress = session.handshake()
            try sendWire(timeout)
            switch progress {
            case .done: return
            case .failed:
                throw ConnectionProblem("TLS with \(name): \(session.takeFailureReason())")
            case .wantsInput: try receiveCiphertext(until: deadline)
            }
        }
    }

    private func sendWire(_ timeout: Int) throws(ConnectionProblem) {
        guard let wire, wire.hasOutbound else { return }
        defer { wire.clearOutbound() }
        try sendAll(wire.outbound, timeout)
    }

    private func sendAll(_ block: Block, _ timeout: Int) throws(ConnectionProblem) {
        let deadline = MonotonicClock.nowMicroseconds() + Int64(timeout) * 1_000
        var sent = 0
        while sent < block.count {
            switch Socket.send(descriptor, block.span(sent..<block.count)) {
            case .bytes(let n): sent += n
            case .wouldBlock: try wait(forWriting: true, until: deadline)
            case .endOfStream, .failed: throw ConnectionProblem("the connection was closed")
            }
        }
    }

    private func wait(forWriting: Bool, until deadline: Int64) throws(ConnectionProblem) {
        let left = Int((deadline - MonotonicClock.nowMicroseconds()) / 1_000)
        guard left > 0,
            Readiness.wait(descriptor, forWriting: forWriting, timeoutMilliseconds: left)
        else { throw ConnectionProblem("no answer in time", isTimeout: true) }
    }

    private func receiveCiphertext(until deadline: Int64) throws(ConnectionProblem) {
        while true {
            try wait(forWriting: false, until: deadline)
            ciphertext.clear()
            switch Socket.receive(descriptor, into: &ciphertext, limit: ciphertext.capacity) {
            case .bytes:
                wire?.setInbound(ciphertext)
                return
            case .wouldBlock: continue
            case .endOfStream, .failed: throw ConnectionProblem("the connection was closed")
            }
        }
    }

    /// Sends everything.
    package func send(_ block: Block, timeoutMilliseconds: Int) throws(ConnectionProblem) {
        guard session.isOpen else {
            try sendAll(block, timeoutMilliseconds)
            return
        }
        var offset = 0
        while offset < block.count {
            let end = min(block.count, offset + 65_536)
            guard session.write(block.span(offset..<end)) else {
                throw ConnectionProblem("the TLS session broke")
            }
            try sendWire(timeoutMilliseconds)
            offset = end
        }
    }

    /// Waits for bytes and appends them to `block`.
    ///
    /// - Returns: false at the end of the stream.
    package func receive(into block: inout Block, timeoutMilliseconds: Int) throws(ConnectionProblem) -> Bool
    {
        let deadline = MonotonicClock.nowMicroseconds() + Int64(timeoutMilliseconds) * 1_000
        while true {
            if session.isOpen {
                switch session.read(into: &block) {
                case .bytes: return true
                case .closed: return false
                case .failed: throw ConnectionProblem("the TLS session broke")
                case .wantsInput: try receiveCiphertext(until: deadline)
                }
            } else {
                try wait(forWriting: false, until: deadline)
                switch Socket.receive(descriptor, into: &block, limit: block.freeCount) {
                case .bytes: return true
                case .endOfStream: return false
                case .wouldBlock: continue
                case .failed: throw ConnectionProblem("the connection was closed")
                }
            }
        }
    }
}
