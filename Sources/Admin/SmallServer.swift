package import DataPlane
import HTTPWire
package import Reactor

// A small HTTP/1.1 server on a loop of its own or of the control thread: for operators, probes and the demo's
// upstream. Its clients are few and its answers small, so a connection is an object and an answer is one
// array.

/// A whole request.
package struct SmallRequest {
    package var method: String
    package var path: String
    package var query: String
    package var fields: [(name: String, value: String)]
    package var body: [UInt8]

    /// The first field of a name, given in lower case.
    package func field(_ name: String) -> String? {
        fields.first { $0.name.lowercased() == name }?.value
    }
}

/// A whole answer.
package struct SmallAnswer {
    package var status: Int
    package var type: String
    package var body: [UInt8]
    package var fields: [(name: String, value: String)] = []

    package init(_ status: Int, _ type: String, _ body: String) {
        self.status = status
        self.type = type
        self.body = Array(body.utf8)
    }
}

package final class SmallServer {
    private final class Connection {
        let descriptor: Descriptor
        var input: [UInt8] = []
        var output: [UInt8] = []
        var sent = 0
        var closesAfterOutput = false
        var deadlineMicroseconds: Int64

        init(_ descriptor: Descriptor, deadlineMicroseconds: Int64) {
            self.descriptor = descriptor
            self.deadlineMicroseconds = deadlineMicroseconds
        }

        deinit { Socket.close(descriptor) }
    }

    /// What one request may take, head and body.
    private static let requestBytesMax = 262_144
    private static let limits = HeadLimits(headBytes: 32_768, fields: 100, targetBytes: 8_192)
    /// A client that neither asks nor reads for this long is closed, in microseconds.
    private static let idleMicroseconds: Int64 = 30_000_000

    private let poller: Poller
    private var listener: Descriptor
    private let firstToken: UInt64
    private let connectionsMax: Int
    private let handler: (SmallRequest) -> SmallAnswer
    private var connections: [UInt64: Connection] = [:]
    private var nextToken: UInt64
    private var head = RequestHead()
    private var scratch = Block.allocate(capacity: 65_536)
    /// The address that was bound, also when port 0 was asked for.
    package let address: SocketAddress

    /// Binds the address and joins a loop.
    ///
    /// - Parameters:
    ///   - inherited: a socket that listens on the address already.
    ///   - firstToken: tokens from here on are this server's.
    /// - Throws: `ServerProblem`.
    package init(
        address text: String, inherited: Descriptor? = nil, poller: Poller, firstToken: UInt64,
        connectionsMax: Int,
        handler: @escaping (SmallRequest) -> SmallAnswer
    ) throws(ServerProblem) {
        guard let wanted = SocketAddress.parse(text) else {
            throw ServerProblem("\"\(text)\" is not an address like 127.0.0.1:9901")
        }
        self.poller = poller
        self.firstToken = firstToken
        self.connectionsMax = connectionsMax
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
        connection.deadlineMicroseconds = nowMicroseconds + Self.idleMicroseconds
        if event.isWritable { flush(connection, event.token) }
        if event.isReadable || event.isHangup || event.isPeerClosed { read(connection, event.token) }
    }

    /// The socket, for a process that takes over; closed when this one has let go of it.
    package var socket: Descriptor { listener }

    /// Takes no more clients.
    package func stopListening() {
        guard listener.isOpen else { return }
        poller.remove(listener)
        Socket.close(listener)
        listener = .none
    }

    /// Closes clients that have gone quiet.
    package func tick(nowMicroseconds: Int64) {
        for (token, connection) in connections where connection.deadlineMicroseconds < nowMicroseconds {
            connections[token] = nil
        }
    }

    private func accept(_ now: Int64) {
        while listener.isOpen, case .accepted(let descriptor, _) = Socket.accept(on: listener) {
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
                descriptor, deadlineMicroseconds: now + Self.idleMicroseconds)
        }
    }

    private func read(_ connection: Connection, _ token: UInt64) {
        scratch.clear()
        switch Socket.receive(connection.descriptor, into: &scratch, limit: scratch.capacity) {
        case .bytes: break
        case .wouldBlock: return
        case .endOfStream, .failed:
            connections[token] = nil
            return
        }
        let bytes = scratch.readable
        for index in 0..<bytes.count { connection.input.append(bytes[index]) }
        while connection.output.isEmpty, !connection.input.isEmpty {
            guard answerNext(connection) else { break }
            flush(connection, token)
            if connections[token] == nil { return }
        }
        if connection.input.count > Self.requestBytesMax { connections[token] = nil }
    }

    /// - Returns: whether a request was whole and has its answer.
    private func answerNext(_ connection: Connection) -> Bool {
        let input = connection.input
        let bytes = input.span
        switch RequestParser.parse(bytes, limits: Self.limits, into: &head) {
        case .incomplete: return false
        case .refused(let refusal):
            connection.closesAfterOutput = true
            connection.input = []
            prepare(
                SmallAnswer(refusal.status, "text/plain", "\(refusal.reason)\n"), connection, isHead: false)
            return true
        case .complete(let count):
            var body: [UInt8] = []
            var end = count
            switch head.body {
            case .none: break
            case .length(let length):
                guard length <= Self.requestBytesMax else { return refuseBody(connection) }
                end = count + Int(length)
                guard bytes.count >= end else { return false }
                body = Array(input[count..<end])
            case .chunked:
                var decoder = ChunkDecoder()
                decoding: while true {
                    switch decoder.next(bytes, &end) {
                    case .data(let range): body += input[range]
                    case .trailer: continue
                    case .end: break decoding
                    case .needMore: return false
                    case .invalid: return refuseBody(connection)
                    }
                }
            }
            connection.closesAfterOutput = !head.keepAlive
            prepare(handler(request(bytes, body)), connection, isHead: head.method == .head)
            connection.input.removeFirst(end)
            return true
        }
    }

    private func refuseBody(_ connection: Connection) -> Bool {
        connection.closesAfterOutput = true
        connection.input = []
        prepare(SmallAnswer(413, "text/plain", "The body cannot be taken.\n"), connection, isHead: false)
        return true
    }

    private func request(_ bytes: Span<UInt8>, _ body: [UInt8]) -> SmallRequest {
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
            query: String(copying: bytes.extracting(head.query)), fields: fields, body: body)
    }

    private func prepare(_ answer: SmallAnswer, _ connection: Connection, isHead: Bool) {
        var text =
            "HTTP/1.1 \(answer.status) \(StatusText.reason(answer.status))\r\n"
        text += "Content-Type: \(answer.type)\r\n"
        for field in answer.fields { text += "\(field.name): \(field.value)\r\n" }
        text += "Content-Length: \(answer.body.count)\r\n"
        if connection.closesAfterOutput { text += "Connection: close\r\n" }
        connection.output = Array((text + "\r\n").utf8)
        if !isHead { connection.output += answer.body }
        connection.sent = 0
    }

    private func flush(_ connection: Connection, _ token: UInt64) {
        let output = connection.output
        while connection.sent < output.count {
            switch Socket.send(connection.descriptor, output.span.extracting(connection.sent..<output.count))
            {
            case .bytes(let n): connection.sent += n
            case .wouldBlock:
                poller.modify(connection.descriptor, token: token, .write)
                return
            case .endOfStream, .failed:
                connections[token] = nil
                return
            }
        }
        guard !output.isEmpty else { return }
        connection.output = []
        if connection.closesAfterOutput {
            Socket.shutdownWrite(connection.descriptor)
            connections[token] = nil
        } else {
            poller.modify(connection.descriptor, token: token, .read)
        }
    }
}
