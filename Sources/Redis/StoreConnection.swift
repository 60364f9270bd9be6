package import Reactor
package import TLS

/// User and password; no description, interpolation or reflection shows them.
package struct StoreCredentials: Sendable, CustomStringConvertible, CustomReflectable {
    let user: String?
    let password: String?

    /// A user without a password does not log in at all.
    package init(user: String?, password: String?) {
        self.user = user
        self.password = password
    }

    /// Hides both.
    package var description: String { "[hidden]" }
    /// Hides both from `dump` too.
    package var customMirror: Mirror { Mirror(self, children: []) }

    /// The `AUTH` command, when there is a password.
    var command: [String]? {
        guard let password else { return nil }
        if let user { return ["AUTH", user, password] }
        return ["AUTH", password]
    }

    /// Refusals of `AUTH` that are known to hold nothing of the command.
    private static let harmlessRefusals = [
        "WRONGPASS", "NOAUTH", "NOPERM", "DENIED", "LOADING", "MASTERDOWN", "ERR invalid password",
        "ERR invalid username-password pair", "ERR Client sent AUTH, but no password is set",
        "ERR AUTH <password> called without any password", "ERR max number of clients",
        "ERR wrong number of arguments",
    ]

    /// What may be shown of a refusal. A server that does not know `AUTH` repeats its arguments, perhaps cut
    /// short, so that looking for the password would not find it: only known words are passed on.
    func shown(refusal text: String) -> String {
        let isHarmless = Self.harmlessRefusals.contains { text.hasPrefix($0) }
        let isRepeated = password.map { !$0.isEmpty && text.contains($0) } ?? false
        if isHarmless, !isRepeated { return text }
        let code = text.prefix { $0 >= "A" && $0 <= "Z" }.prefix(16)
        let isCodeRepeated = password.map { code.contains($0) } ?? false
        return "\(isCodeRepeated ? "ERR" : code) (the server's words may repeat the password)"
    }
}

// One pipelined connection on a worker's own loop: the same poller, the same TLS wire, no callbacks. Commands
// of a turn collect in `output` and leave with one system call; replies come back in order.

/// A non-blocking connection to Redis.
package final class StoreConnection {
    /// How far the connection has come; only a ready one takes commands.
    package enum Phase: Sendable { case closed, connecting, handshaking, preparing, ready }

    /// Commands that wait for the socket; a worker that has more than this to ask gets refusals instead.
    private static let outputBytes = 1 << 20
    /// Hexadecimal digits of a SHA-1.
    private static let scriptNameCount = 40

    /// Changes in `connect`, `handle`, `flush`, `nextReply` and `close` only.
    package private(set) var phase = Phase.closed
    /// Why the connection was last lost.
    package private(set) var failureReason = ""
    /// SHA-1 of the script as Redis knows it: 40 hexadecimal digits.
    package private(set) var scriptName = Block.allocate(capacity: 64)
    /// Which data the server has, as it said when the connection was made.
    package private(set) var history = StoreHistory()
    /// Whether a server that is no master is refused: set before `connect` when somebody else names it.
    package var checksRole = false
    /// Commands of this turn.
    package var output = Block.allocate(capacity: StoreConnection.outputBytes)

    private let credentials: StoreCredentials
    private let database: Int
    private let script: String
    private let poller: Poller
    private let token: UInt64
    private let wire: TLSWire
    private let context: TLSClientContext?
    private var serverName: String
    private let reader = ReplyReader()
    private var descriptor = Descriptor.none
    private var session = TLSSession()
    private var interest = Interest.read
    /// Ciphertext that the socket would not take yet.
    private var ciphertext = Block.none
    private var received = Block.allocate(capacity: 65_536)
    /// Plaintext on its way to the reader; only TLS needs it.
    private var plain = Block.none
    private var preamble: [[String]] = []
    private var answeredOfPreamble = 0

    /// - Parameters:
    ///   - script: loaded whenever a connection is made.
    ///   - token: of the connection's events on `poller`.
    ///   - context: for TLS; nil is none.
    ///   - serverName: the name that the certificate must have.
    package init(
        credentials: StoreCredentials, database: Int, script: String, poller: Poller, token: UInt64,
        wire: TLSWire, context: TLSClientContext?, serverName: String
    ) {
        self.credentials = credentials
        self.database = database
        self.script = script
        self.poller = poller
        self.token = token
        self.wire = wire
        self.context = context
        self.serverName = serverName
        if context != nil { plain = Block.allocate(capacity: 65_536) }
    }

    deinit {
        if descriptor.isOpen { Socket.close(descriptor) }
        session.free()
        for block in [scriptName, output, ciphertext, received, plain] {
            var block = block
            block.deallocate()
        }
    }

    /// Whether commands may be put into `output`.
    package var isReady: Bool { phase == .ready }

    /// Starts connecting; `handle` tells how it goes on.
    ///
    /// - Parameter name: that the certificate must have from now on; nil leaves it as it is.
    package func connect(to address: SocketAddress, serverName name: String? = nil) {
        if let name { serverName = name }
        open { () throws(SystemError) in try Socket.connect(to: address) }
    }

    /// The same over a Unix socket.
    package func connect(toUnixPath path: String) {
        open { () throws(SystemError) in try Socket.connect(toUnixPath: path) }
    }

    private func open(
        _ connect: () throws(SystemError) -> (descriptor: Descriptor, inProgress: Bool)
    ) {
        close("")
        do {
            let opened = try connect()
            descriptor = opened.descriptor
            phase = .connecting
            interest = .write
            try poller.add(descriptor, token: token, .write)
        } catch {
            close("cannot connect: \(error.reason)")
        }
    }

    /// Ends the connection. Commands without a reply are lost: whether they took effect is unknown.
    package func close(_ reason: String) {
        if descriptor.isOpen { Socket.close(descriptor) }
        descriptor = .none
        session.free()
        phase = .closed
        failureReason = reason
        output.clear()
        ciphertext.deallocate()
        reader.reset()
    }

    /// Takes an event of this connection. Afterwards `nextReply` has what has come.
    package func handle(_ event: Event) {
        switch phase {
        case .closed: return
        case .connecting:
            let code = Socket.pendingError(descriptor)
            guard code == 0 else {
                close("cannot connect: \(SystemError(code: code, operation: "connect").reason)")
                return
            }
            isConnected()
        case .handshaking, .preparing, .ready:
            if event.isWritable { sendRest() }
            if phase != .closed, event.isReadable || event.isHangup || event.isPeerClosed { receive() }
        }
    }

    private func isConnected() {
        interest = .read
        poller.modify(descriptor, token: token, .read)
        guard let context else {
            prepare()
            return
        }
        guard let made = context.makeSession(serverName: serverName) else {
            close("no TLS session can be made")
            return
        }
        session = made
        phase = .handshaking
        wire.setInbound(.none)
        shakeHands()
    }

    private func shakeHands() {
        let progress = session.handshake()
        sendWire()
        guard phase != .closed else { return }
        switch progress {
        case .wantsInput: return
        case .failed: close("TLS: \(session.takeFailureReason())")
        case .done: prepare()
        }
    }

    /// Everything a fresh connection needs, in one write.
    private func prepare() {
        phase = .preparing
        preamble = []
        answeredOfPreamble = 0
        history = StoreHistory()
        if let command = credentials.command { preamble.append(command) }
        if database != 0 { preamble.append(["SELECT", "\(database)"]) }
        preamble.append(["CLIENT", "SETNAME", "gateway"])
        if checksRole { preamble.append(["ROLE"]) }
        preamble.append(["INFO", "server"])
        preamble.append(["INFO", "replication"])
        preamble.append(["SCRIPT", "LOAD", script])
        for command in preamble { output.append(CommandWriter.bytes(command).span) }
        flush()
    }

    /// Has Redis learn the script again, which it may have forgotten.
    ///
    /// - Returns: false when there is no room for it now.
    package func loadScript() -> Bool {
        let command = CommandWriter.bytes(["SCRIPT", "LOAD", script])
        guard phase == .ready, output.freeCount > command.count else { return false }
        output.append(command.span)
        return true
    }

    private func receive() {
        received.clear()
        switch Socket.receive(descriptor, into: &received, limit: received.capacity) {
        case .wouldBlock: return
        case .endOfStream:
            close("Redis has closed the connection")
        case .failed(let code):
            close("the connection broke: \(SystemError(code: code, operation: "recv").reason)")
        case .bytes:
            guard session.isOpen else {
                reader.feed(received.readable)
                if phase == .preparing { readPreamble() }
                return
            }
            wire.setInbound(received)
            if phase == .handshaking {
                shakeHands()
                if wire.inboundRemaining == 0 || phase == .closed { return }
            }
            decrypt()
            if phase == .preparing { readPreamble() }
        }
    }

    private func decrypt() {
        while true {
            plain.clear()
            switch session.read(into: &plain) {
            case .bytes:
                reader.feed(plain.readable)
            case .wantsInput:
                sendWire()
                return
            case .closed:
                endSession("Redis has closed the connection")
                return
            case .failed:
                endSession("the TLS session broke")
                return
            }
        }
    }

    /// Closes when the session is over. What OpenSSL had to say about that is not left in the wire, where the
    /// records of whoever uses it next would stand behind it.
    private func endSession(_ reason: String) {
        wire.clearOutbound()
        close(reason)
    }

    private func readPreamble() {
        while phase == .preparing, let reply = readReply() {
            let command = preamble[answeredOfPreamble]
            answeredOfPreamble += 1
            if let problem = takePreamble(reply, to: command[0]) {
                close(problem)
                return
            }
            if answeredOfPreamble == preamble.count {
                preamble = []
                phase = .ready
            }
        }
    }

    /// - Returns: why the connection cannot be used, or nil.
    private func takePreamble(_ reply: Reply, to command: String) -> String? {
        switch command {
        // What only names us, or tells more about the server, is nothing to fail for.
        case "CLIENT": return nil
        case "INFO":
            if reply.kind == .string { history.read(reply.text) }
            return nil
        case "ROLE":
            // Who may not ask has to believe whoever named the server.
            if reply.kind == .error, reply.text.hasPrefix("NOPERM") { return nil }
            if reply.kind == .array, reply.count > 0, reply.element(0).text == "master" { return nil }
            return reply.kind == .error ? "Redis refuses ROLE: \(reply.text)" : "the server is a replica"
        default: break
        }
        if reply.kind == .error {
            let text = command == "AUTH" ? credentials.shown(refusal: reply.text) : reply.text
            return "Redis refuses \(command): \(text)"
        }
        guard command == "SCRIPT" else { return nil }
        guard reply.kind == .string, reply.bytes.count == Self.scriptNameCount else {
            return "the answer to SCRIPT LOAD is no name of a script: not Redis"
        }
        scriptName.clear()
        scriptName.append(reply.bytes)
        return nil
    }

    /// The next reply to a command of `output`, in order; nil when there is none yet or the connection is
    /// lost.
    package func nextReply() -> Reply? { phase == .ready ? readReply() : nil }

    private func readReply() -> Reply? {
        do {
            return try reader.next()
        } catch {
            close(error.text)
            return nil
        }
    }

    // MARK: Output

    /// Sends what has collected.
    package func flush() {
        guard phase == .preparing || phase == .ready, !output.isEmpty else { return }
        guard session.isOpen else {
            let block = output
            if let n = send(block) {
                output.consume(n)
                if !output.isEmpty { output.compact() }
            }
            watch()
            return
        }
        guard !ciphertext.isAllocated else { return }
        let block = output
        var offset = 0
        while offset < block.count, phase != .closed {
            let end = min(block.count, offset + 65_536)
            guard session.write(block.span(offset..<end)) else {
                endSession("the TLS session broke")
                return
            }
            offset = end
            sendWire()
        }
        output.clear()
    }

    private func sendWire() {
        guard wire.hasOutbound else { return }
        defer { wire.clearOutbound() }
        let block = wire.outbound
        var sent = 0
        if !ciphertext.isAllocated {
            guard let n = send(block) else { return }
            sent = n
        }
        guard sent < block.count else { return }
        if !ciphertext.isAllocated { ciphertext = Block.allocate(capacity: 2 * Self.outputBytes) }
        guard ciphertext.freeCount >= block.count - sent else {
            close("Redis does not read")
            return
        }
        ciphertext.append(block.span(sent..<block.count))
        watch()
    }

    private func sendRest() {
        if ciphertext.isAllocated {
            let block = ciphertext
            guard let n = send(block) else { return }
            ciphertext.consume(n)
            if ciphertext.isEmpty { ciphertext.deallocate() }
        }
        flush()
        if phase != .closed { watch() }
    }

    /// - Returns: bytes sent, or nil when the connection was lost.
    private func send(_ block: Block) -> Int? {
        switch Socket.send(descriptor, block.readable) {
        case .bytes(let n): return n
        case .wouldBlock: return 0
        case .endOfStream, .failed:
            close("the connection broke while sending")
            return nil
        }
    }

    private func watch() {
        guard phase != .closed else { return }
        let hasRest = ciphertext.isAllocated || (!session.isOpen && !output.isEmpty)
        let wanted: Interest = hasRest ? [.read, .write] : .read
        guard wanted != interest else { return }
        interest = wanted
        poller.modify(descriptor, token: token, wanted)
    }
}

/// How long to wait before the next attempt to connect: 10 ms, doubled up to half a second, half of
/// it random. What was revoked meanwhile acts when the store is there again, within a second of its return.
package struct ReconnectDelay: Sendable {
    private static let firstMicroseconds: Int64 = 10_000
    private static let lastMicroseconds: Int64 = 500_000
    private var next = ReconnectDelay.firstMicroseconds

    /// The first delay comes next.
    package init() {}

    /// After a success: the first delay comes next.
    package mutating func reset() { next = Self.firstMicroseconds }

    /// - Parameter random: any 64 random bits.
    /// - Returns: microseconds.
    package mutating func take(random: UInt64) -> Int64 {
        let delay = next / 2 + Int64(random % UInt64(next / 2 + 1))
        next = min(next * 2, Self.lastMicroseconds)
        return delay
    }
}
