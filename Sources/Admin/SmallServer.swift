package import DataPlane
import HTTPWire
package import Reactor

// A small HTTP/1.1 server on a loop of its own or of the control thread: for operators, probes and the demo's
// upstream. Its clients are few and its answers small, so a connection is an object and an answer is one
// array.
//
// A handler answers at once, or says that the answer comes later: then the connection is neither read nor
// closed until `answer` is called with the request's ticket. A connection has one request in hand at a time.

/// A whole request.
package struct SmallRequest: Sendable {
    package var method: String
    package var path: String
    /// With its `?`; empty when there is none.
    package var query: String
    package var fields: [(name: String, value: String)]
    package var body: [UInt8]
    /// Who asks.
    package var peer: SocketAddress
    /// What `SmallServer.answer` wants when the answer comes later.
    package var ticket: UInt64

    /// The first field of a name, given in lower case.
    package func field(_ name: String) -> String? {
        fields.first { $0.name.lowercased() == name }?.value
    }

    /// How many fields have a name, given in lower case.
    package func count(of name: String) -> Int {
        fields.reduce(0) { $0 + ($1.name.lowercased() == name ? 1 : 0) }
    }
}

/// A whole answer.
package struct SmallAnswer: Sendable {
    package var status: Int
    /// Empty without a body.
    package var type: String
    package var body: [UInt8]
    package var fields: [(name: String, value: String)] = []

    package init(_ status: Int, _ type: String, _ body: String) {
        self.init(status, type, Array(body.utf8))
    }

    package init(_ status: Int, _ type: String, _ body: [UInt8]) {
        self.status = status
        self.type = type
        self.body = body
    }

    /// A refusal in the same shape as the data plane's.
    package init(_ status: Int, code: String, _ message: String) {
        self.init(
            status, "application/json",
            "{\"error\":{\"code\":\"\(code)\",\"message\":\"\(JSONText.escape(message))\"}}\n")
    }
}

package final class SmallServer {
    private final class Connection {
        let descriptor: Descriptor
        let peer: SocketAddress
        var input: [UInt8] = []
        var output: [UInt8] = []
        var sent = 0
        var closesAfterOutput = false
        /// An answer is under way from elsewhere.
        var isWaiting = false
        /// What the loop watches it for.
        var interest = Interest.read
        var isHead = false
        var saidContinue = false
        /// Everything is said: what still arrives is dropped, so that closing does not reset the connection
        /// before the client has read the answer.
        var isLingering = false
        /// When the sending of the output began.
        var begunMicroseconds: Int64 = 0
        var deadlineMicroseconds: Int64

        init(_ descriptor: Descriptor, _ peer: SocketAddress, deadlineMicroseconds: Int64) {
            self.descriptor = descriptor
            self.peer = peer
            self.deadlineMicroseconds = deadlineMicroseconds
        }

        deinit { Socket.close(descriptor) }

        /// Nothing has been asked, or everything has been answered.
        var isIdle: Bool { input.isEmpty && output.isEmpty && !isWaiting && !isLingering }
    }

    private enum Progress { case needsMore, answered, waiting }

    private static let limits = HeadLimits(headBytes: 32_768, fields: 100, targetBytes: 8_192)
    /// A client that is quiet for this long, or takes longer for one request, is closed; microseconds.
    private static let idleMicroseconds: Int64 = 30_000_000
    /// What a client has to take of an answer on average after that time, in bytes a second: a scrape over a
    /// slow line takes more.
    private static let answerRate: Int64 = 16_384
    /// For so long after it came or was answered a client keeps its place before those that are slow to read
    /// an answer; microseconds.
    private static let freshMicroseconds: Int64 = 1_000_000
    /// Clients accepted in a turn: what they ask is read before others come and take their places.
    private static let acceptsPerTurn = 16
    /// How long a client gets to read its last answer.
    private static let lingerMicroseconds: Int64 = 2_000_000

    /// How long it waits without file descriptors before it accepts again.
    private static let acceptPauseMicroseconds: Int64 = 500_000

    private let poller: Poller
    /// None once new clients are another process's.
    private var listener: Descriptor
    private let firstToken: UInt64
    private let connectionsMax: Int
    private let bodyBytesMax: Int
    private let handler: (SmallRequest) -> SmallAnswer?
    private var connections: [UInt64: Connection] = [:]
    private var nextToken: UInt64
    /// When accepting goes on after file descriptors ran out; 0 while it does.
    private var acceptsAgainMicroseconds: Int64 = 0
    private var head = RequestHead()
    private var scratch = Block.allocate(capacity: 65_536)
    /// The address that was bound, also when port 0 was asked for.
    package let address: SocketAddress

    /// Binds the address and joins a loop.
    ///
    /// - Parameters:
    ///   - inherited: a socket that listens on the address already.
    ///   - firstToken: tokens from here on are this server's.
    ///   - connectionsMax: with more, one makes room, of the address that holds most.
    ///   - bodyBytesMax: what the body of a request may take.
    ///   - handler: nil says that `answer` will be called later, exactly once, on the loop's thread.
    /// - Throws: `ServerProblem`.
    package init(
        address text: String, inherited: Descriptor? = nil, poller: Poller, firstToken: UInt64,
        connectionsMax: Int, bodyBytesMax: Int = 262_144,
        handler: @escaping (SmallRequest) -> SmallAnswer?
    ) throws(ServerProblem) {
        guard let wanted = SocketAddress.parse(text) else {
            throw ServerProblem("\"\(text)\" is not an address like 127.0.0.1:9901")
        }
        self.poller = poller
        self.firstToken = firstToken
        self.connectionsMax = connectionsMax
        self.bodyBytesMax = bodyBytesMax
        self.handler = handler
        nextToken = firstToken + 1
        do {
            if let inherited {
                listener = inherited
            } else {
                listener = try Socket.listen(on: wanted, reusePort: false)
            }
            try poller.add(listener, token: firstToken, .read)
        } catch {
            throw ServerProblem(Socket.bindSentence(error, address: text))
        }
        address = Socket.localAddress(listener) ?? wanted
    }

    /// Handles an event whose token is `firstToken` or above.
    package func handle(_ event: Event, nowMicroseconds: Int64) {
        if event.token == firstToken {
            accept(nowMicroseconds)
            return
        }
        guard let connection = connections[event.token] else { return }
        if connection.isLingering {
            drain(connection, event.token)
            return
        }
        if connection.isWaiting {
            // Nothing is watched for but the end of the connection: nobody waits for the answer any more.
            if event.isHangup { connections[event.token] = nil }
            return
        }
        if !connection.output.isEmpty {
            if event.isHangup {
                connections[event.token] = nil
            } else if event.isWritable {
                flush(connection, event.token, nowMicroseconds)
                advance(event.token, nowMicroseconds)
            }
        } else if event.isReadable || event.isHangup || event.isPeerClosed {
            read(connection, event.token, nowMicroseconds)
        }
    }

    /// Sends an answer that was to come later; nothing happens when its connection has gone.
    package func answer(_ ticket: UInt64, _ answer: SmallAnswer, nowMicroseconds: Int64) {
        guard let connection = connections[ticket], connection.isWaiting else { return }
        connection.isWaiting = false
        prepare(answer, connection)
        send(connection, ticket, nowMicroseconds)
        advance(ticket, nowMicroseconds)
    }

    /// The socket, for a process that takes over; closed when this one has let go of it.
    package var socket: Descriptor { listener }

    /// Takes no more clients, and keeps none: a client that stayed would go on asking this process about one
    /// that is gone. Who waits for an answer gets it, as the last.
    package func stopListening() {
        guard listener.isOpen else { return }
        poller.remove(listener)
        Socket.close(listener)
        listener = .none
        for (token, connection) in connections where connection.isIdle { connections[token] = nil }
        for connection in connections.values where connection.isWaiting {
            connection.closesAfterOutput = true
        }
    }

    /// Closes clients that have gone quiet.
    package func tick(nowMicroseconds: Int64) {
        if acceptsAgainMicroseconds > 0, nowMicroseconds >= acceptsAgainMicroseconds {
            acceptsAgainMicroseconds = 0
            if listener.isOpen { poller.modify(listener, token: firstToken, .read) }
        }
        for (token, connection) in connections
        where connection.deadlineMicroseconds < nowMicroseconds && !connection.isWaiting {
            connections[token] = nil
        }
    }

    private func accept(_ now: Int64) {
        for _ in 0..<Self.acceptsPerTurn where listener.isOpen {
            let accepted = Socket.accept(on: listener)
            if case .outOfDescriptors = accepted {
                // Not watched meanwhile: a level-triggered listener would keep the loop spinning.
                poller.modify(listener, token: firstToken, Interest.none)
                acceptsAgainMicroseconds = now + Self.acceptPauseMicroseconds
                return
            }
            guard case .accepted(let descriptor, let peer) = accepted else { return }
            if connections.count >= connectionsMax { makeRoom(now) }
            guard connections.count < connectionsMax else {
                Socket.close(descriptor)
                continue
            }
            let token = nextToken
            nextToken += 1
            guard (try? poller.add(descriptor, token: token, .read)) != nil else {
                Socket.close(descriptor)
                continue
            }
            connections[token] = Connection(
                descriptor, peer, deadlineMicroseconds: now + Self.idleMicroseconds)
        }
    }

    /// Connections that are kept for a next request, never had one, or do not read their answers must not
    /// shut others out. The address that holds most gives one up: whoever takes all places loses its own.
    private func makeRoom(_ now: Int64) {
        let all = connections.filter { !$0.value.isWaiting }
        var held: [UInt64: Int] = [:]
        for connection in all.values { held[Self.network(connection.peer), default: 0] += 1 }
        let most = held.values.max()
        let candidates = all.filter { held[Self.network($0.value.peer)] == most }
        let last = candidates.min { left, right in
            let ranks = (rank(left.value, now), rank(right.value, now))
            if ranks.0 != ranks.1 { return ranks.0 < ranks.1 }
            return left.value.deadlineMicroseconds < right.value.deadlineMicroseconds
        }
        if let last { connections[last.key] = nil }
    }

    /// The lower, the less is lost with a connection.
    private func rank(_ connection: Connection, _ now: Int64) -> Int {
        if !connection.output.isEmpty { return 1 }
        let quietSince = connection.deadlineMicroseconds - Self.idleMicroseconds
        return now - quietSince < Self.freshMicroseconds ? 2 : 0
    }

    /// An IPv4 address, or the /64 of an IPv6 address.
    private static func network(_ peer: SocketAddress) -> UInt64 {
        let prefix = peer.rateLimitPrefix
        return prefix.0 | prefix.1
    }

    private func read(_ connection: Connection, _ token: UInt64, _ now: Int64) {
        scratch.clear()
        switch Socket.receive(connection.descriptor, into: &scratch, limit: scratch.capacity) {
        case .bytes: break
        case .wouldBlock: return
        case .endOfStream, .failed:
            connections[token] = nil
            return
        }
        // The first bytes of a request start its clock; those that trickle in later do not stop it.
        if connection.input.isEmpty { connection.deadlineMicroseconds = now + Self.idleMicroseconds }
        let bytes = scratch.readable
        for index in 0..<bytes.count { connection.input.append(bytes[index]) }
        advance(token, now)
    }

    /// Answers what has arrived whole, one request after the other.
    private func advance(_ token: UInt64, _ now: Int64) {
        while let connection = connections[token], connection.output.isEmpty, !connection.isWaiting,
            !connection.isLingering, !connection.input.isEmpty
        {
            switch takeNext(connection, token) {
            case .needsMore:
                if !connection.output.isEmpty { send(connection, token, now) }
                if connection.input.count > bodyBytesMax + Self.limits.headBytes * 2 {
                    connections[token] = nil
                }
                return
            case .waiting:
                connection.isWaiting = true
                watch(connection, token, .none)
                return
            case .answered: send(connection, token, now)
            }
        }
    }

    private func takeNext(_ connection: Connection, _ token: UInt64) -> Progress {
        let input = connection.input
        let bytes = input.span
        switch RequestParser.parse(bytes, limits: Self.limits, into: &head) {
        case .incomplete: return .needsMore
        case .refused(let refusal):
            return refuse(connection, refusal.status, "BAD_REQUEST", "\(refusal.reason)")
        case .complete(let count):
            connection.isHead = head.method == .head
            var body: [UInt8] = []
            var end = count
            switch head.body {
            case .none: break
            case .length(let length):
                guard length <= bodyBytesMax else { return refuseSize(connection) }
                end = count + Int(length)
                guard bytes.count >= end else { return awaitBody(connection) }
                body = Array(input[count..<end])
            case .chunked:
                var decoder = ChunkDecoder()
                decoding: while true {
                    switch decoder.next(bytes, &end) {
                    case .data(let range): body += input[range]
                    case .trailer: continue
                    case .end: break decoding
                    case .needMore: return awaitBody(connection)
                    case .invalid:
                        return refuse(connection, 400, "BAD_REQUEST", "The body's chunks are malformed.")
                    }
                    guard body.count <= bodyBytesMax else { return refuseSize(connection) }
                }
            }
            connection.closesAfterOutput = !head.keepAlive || !listener.isOpen
            connection.saidContinue = false
            let asked = request(bytes, body, connection, token)
            connection.input.removeFirst(end)
            guard let answer = handler(asked) else { return .waiting }
            prepare(answer, connection)
            return .answered
        }
    }

    private func awaitBody(_ connection: Connection) -> Progress {
        if head.expectsContinue, !connection.saidContinue {
            connection.saidContinue = true
            connection.output = Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)
            connection.sent = 0
        }
        return .needsMore
    }

    private func refuseSize(_ connection: Connection) -> Progress {
        refuse(
            connection, 413, "PAYLOAD_TOO_LARGE", "The request body is larger than \(bodyBytesMax) bytes.")
    }

    /// Where the next request begins is in doubt: the connection ends.
    private func refuse(
        _ connection: Connection, _ status: Int, _ code: String, _ message: String
    ) -> Progress {
        connection.closesAfterOutput = true
        connection.input = []
        prepare(SmallAnswer(status, code: code, message), connection)
        return .answered
    }

    private func request(
        _ bytes: Span<UInt8>, _ body: [UInt8], _ connection: Connection, _ token: UInt64
    ) -> SmallRequest {
        var fields: [(name: String, value: String)] = []
        for index in 0..<head.fieldCount {
            let field = head.field(index)
            fields.append(
                (
                    String(copying: bytes.extracting(field.name)),
                    String(copying: bytes.extracting(field.value))
                ))
        }
        return SmallRequest(
            method: String(copying: bytes.extracting(head.methodRange)),
            path: String(copying: bytes.extracting(head.path)),
            query: String(copying: bytes.extracting(head.query)), fields: fields, body: body,
            peer: connection.peer, ticket: token)
    }

    private func prepare(_ answer: SmallAnswer, _ connection: Connection) {
        var text =
            "HTTP/1.1 \(answer.status) \(StatusText.reason(answer.status))\r\n"
        if !answer.type.isEmpty { text += "Content-Type: \(answer.type)\r\n" }
        for field in answer.fields { text += "\(field.name): \(field.value)\r\n" }
        // RFC 9110 section 8.6: a 204 has no length.
        if answer.status != 204 { text += "Content-Length: \(answer.body.count)\r\n" }
        if connection.closesAfterOutput { text += "Connection: close\r\n" }
        connection.output = Array((text + "\r\n").utf8)
        if !connection.isHead { connection.output += answer.body }
        connection.sent = 0
    }

    private func send(_ connection: Connection, _ token: UInt64, _ now: Int64) {
        connection.begunMicroseconds = now
        flush(connection, token, now)
    }

    private func flush(_ connection: Connection, _ token: UInt64, _ now: Int64) {
        let output = connection.output
        while connection.sent < output.count {
            switch Socket.send(connection.descriptor, output.span.extracting(connection.sent..<output.count))
            {
            case .bytes(let n): connection.sent += n
            case .wouldBlock:
                // What it has taken buys time, but no more than a client that takes nothing gets.
                let paid = Int64(connection.sent) * 1_000_000 / Self.answerRate
                connection.deadlineMicroseconds =
                    min(now, connection.begunMicroseconds + paid) + Self.idleMicroseconds
                watch(connection, token, .write)
                return
            case .endOfStream, .failed:
                connections[token] = nil
                return
            }
        }
        guard !output.isEmpty else { return }
        connection.output = []
        watch(connection, token, .read)
        connection.deadlineMicroseconds = now + Self.idleMicroseconds
        guard connection.closesAfterOutput else { return }
        Socket.shutdownWrite(connection.descriptor)
        connection.isLingering = true
        connection.input = []
        connection.deadlineMicroseconds = now + Self.lingerMicroseconds
    }

    private func watch(_ connection: Connection, _ token: UInt64, _ interest: Interest) {
        guard interest != connection.interest else { return }
        connection.interest = interest
        poller.modify(connection.descriptor, token: token, interest)
    }

    private func drain(_ connection: Connection, _ token: UInt64) {
        scratch.clear()
        switch Socket.receive(connection.descriptor, into: &scratch, limit: scratch.capacity) {
        case .bytes, .wouldBlock: return
        case .endOfStream, .failed: connections[token] = nil
        }
    }
}
