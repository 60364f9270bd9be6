import Glibc
import Reactor
import TLS

/// A caller whose every ciphertext byte the test decides about: records can be held back, cut and dripped.
final class WireCaller {
    let connection: TCPConnection
    private let wire: TLSWire
    private let context: TLSClientContext
    private var session: TLSSession
    private var inbound = Block.allocate(capacity: 65_536)
    /// Ciphertext that came while the caller was saying something.
    private var early: [UInt8] = []

    /// - Parameter receiveBytes: the size of the socket's receive buffer; 0 leaves it to the kernel.
    init(port: UInt16, receiveBytes: Int32 = 0) throws {
        connection = try TCPConnection(port: port, receiveBytes: receiveBytes)
        wire = try TLSWire(outboundCapacity: 2 << 20)
        context = try TLSClientContext(caPath: try Certificate.shared.get().chainPath, wire: wire)
        guard let made = context.makeSession(serverName: "localhost") else {
            throw HarnessError("no TLS session")
        }
        session = made
    }

    deinit {
        session.free()
        inbound.deallocate()
    }

    /// The first flight of a handshake, not sent.
    func hello() -> [UInt8] {
        wire.setInbound(.none)
        _ = session.handshake()
        return takeOutbound()
    }

    /// The last flight of a handshake, not sent; `hello` has been.
    func finish() throws -> [UInt8] {
        while true {
            try receive(within: 5)
            switch session.handshake() {
            case .done: return takeOutbound()
            case .wantsInput: continue
            case .failed: throw HarnessError(session.takeFailureReason())
            }
        }
    }

    func shakeHands() throws {
        try send(hello())
        try send(finish())
    }

    /// The records of a text, not sent.
    func seal(_ text: String) -> [UInt8] {
        let bytes = Array(text.utf8)
        _ = session.write(bytes.span)
        return takeOutbound()
    }

    func send(_ bytes: [UInt8]) throws { try connection.stream.write(bytes) }

    /// Sends a text in records of its own.
    func say(_ text: String) throws { try send(seal(text)) }

    /// Sends bytes one at a time until all are sent or the other side has had enough.
    ///
    /// - Parameter milliseconds: between two of them.
    func drip(_ bytes: some Sequence<UInt8>, every milliseconds: Int32 = 20) {
        for byte in bytes {
            guard (try? send([byte])) != nil, !isOver(within: milliseconds) else { return }
        }
    }

    /// Says pieces one at a time until all are said or the other side has had enough.
    func drip(records pieces: some Sequence<String>, every milliseconds: Int32 = 20) {
        for piece in pieces {
            guard (try? say(piece)) != nil, !isOver(within: milliseconds) else { return }
        }
    }

    /// Waits, and tells whether the gateway has ended the connection; what else it says is kept for `rest`.
    func isOver(within milliseconds: Int32) -> Bool {
        let deadline = Deadline(seconds: Double(milliseconds) / 1_000)
        while true {
            var waiting = pollfd(fd: connection.descriptor, events: Int16(POLLIN), revents: 0)
            guard unsafe poll(&waiting, 1, deadline.remainingMilliseconds) > 0 else { return false }
            guard let bytes = try? connection.stream.read(within: 0), !bytes.isEmpty else { return true }
            early += bytes
        }
    }

    /// The plaintext of everything until the gateway ends the connection.
    func rest(within seconds: Double) -> String {
        var plain = Block.allocate(capacity: 1 << 20)
        defer { plain.deallocate() }
        let deadline = Deadline(seconds: seconds)
        reading: while !deadline.hasPassed {
            switch session.read(into: &plain) {
            case .bytes: continue
            case .closed, .failed: break reading
            case .wantsInput: if (try? receive(within: seconds)) == nil { break reading }
            }
        }
        let bytes = plain.readable
        return String(latin1: (0..<bytes.count).map { bytes[$0] })
    }

    private func receive(within seconds: Double) throws {
        let bytes = early.isEmpty ? try connection.stream.read(within: seconds) : early
        early = []
        guard !bytes.isEmpty else { throw HarnessError("the connection has ended") }
        inbound.clear()
        inbound.append(bytes.span)
        wire.setInbound(inbound)
    }

    private func takeOutbound() -> [UInt8] {
        let bytes = wire.outbound.readable
        let copy = (0..<bytes.count).map { bytes[$0] }
        wire.clearOutbound()
        return copy
    }
}
