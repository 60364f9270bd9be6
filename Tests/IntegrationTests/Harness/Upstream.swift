import Foundation
import Synchronization

/// A request as the upstream received it.
struct UpstreamRequest: Sendable {
    let head: Head
    /// Number of the connection that it came on, from 0, health checks not counted.
    let connection: Int
    /// Content, without chunk framing.
    var body: [UInt8] = []
    /// The body's bytes as sent, chunk framing included.
    var rawBody: [UInt8] = []
    var trailers = Head("")

    var method: String { String(head.startLine.split(separator: " ").first ?? "") }
    var target: String { String(head.startLine.split(separator: " ").dropFirst().first ?? "") }
    subscript(name: String) -> String? { head[name] }
}

/// The service behind the gateway, played by the test: records every byte and answers what it is told.
final class Upstream: Sendable {
    /// Plays one request: reads more of it and answers, or misbehaves.
    typealias Script = @Sendable (borrowing UpstreamExchange) throws -> Void

    let port: UInt16
    var endpoint: String { "http://127.0.0.1:\(port)" }

    private let listener: Listener
    private let script: Mutex<Script>
    private let state = Mutex(State())

    private struct State {
        var requests: [UpstreamRequest] = []
        var connections = 0
        var open: [ObjectIdentifier: TCPConnection] = [:]
        var isHealthy = true
        var healthChecks = 0
    }

    /// - Parameter script: plays every request other than health checks.
    init(port: UInt16 = 0, _ script: @escaping Script = Upstream.answer("ok")) throws {
        listener = try Listener(port: port)
        self.port = listener.port
        self.script = Mutex(script)
        Thread.detachNewThread { [weak self, listener] in
            while let connection = listener.accept() {
                guard let self else { return }
                Thread.detachNewThread { self.serve(connection) }
            }
        }
    }

    deinit { stop() }

    /// Every request so far, health checks left out.
    var requests: [UpstreamRequest] { state.withLock { $0.requests } }
    /// The latest request; the test has checked that there is one, or waits for one here.
    func latest() throws -> UpstreamRequest {
        try Deadline(seconds: 5).wait("a request at the upstream") { requests.last }
    }
    /// Connections that carried a request.
    var connectionCount: Int { state.withLock { $0.connections } }
    var healthCheckCount: Int { state.withLock { $0.healthChecks } }
    /// What `/healthz` answers: 200 or 500.
    var isHealthy: Bool {
        get { state.withLock { $0.isHealthy } }
        set { state.withLock { $0.isHealthy = newValue } }
    }

    /// From now on requests are played like this.
    func play(_ script: @escaping Script) { self.script.withLock { $0 = script } }

    /// Accepts no more, and ends every connection.
    func stop() {
        listener.stop()
        endConnections()
    }

    /// Ends every open connection.
    func endConnections() {
        let open = state.withLock { state in
            defer { state.open = [:] }
            return state.open
        }
        for connection in open.values { connection.shutdownBoth() }
    }

    func record(_ request: UpstreamRequest) { state.withLock { $0.requests.append(request) } }

    private func serve(_ connection: TCPConnection) {
        state.withLock { $0.open[ObjectIdentifier(connection)] = connection }
        defer {
            state.withLock { $0.open[ObjectIdentifier(connection)] = nil }
            connection.close()
        }
        var reader = MessageReader(connection.stream)
        reader.timeoutSeconds = 60
        var number: Int?
        while let head = try? reader.takeHead() {
            if head.startLine.hasPrefix("GET /healthz ") {
                let isHealthy = state.withLock { state in
                    state.healthChecks += 1
                    return state.isHealthy
                }
                let status = isHealthy ? "200 OK" : "500 Internal Server Error"
                try? connection.stream.write("HTTP/1.1 \(status)\r\nContent-Length: 0\r\n\r\n".utf8)
                continue
            }
            let known =
                number
                ?? state.withLock { state in
                    state.connections += 1
                    return state.connections - 1
                }
            number = known
            let exchange = UpstreamExchange(
                upstream: self, connection: connection, reader: reader,
                request: UpstreamRequest(head: head, connection: known))
            let script = script.withLock { $0 }
            guard (try? script(exchange)) != nil, !exchange.isOver else { return }
            reader = exchange.reader.withLock { $0 }
        }
    }
}

/// One request at the upstream while it is being played.
final class UpstreamExchange: Sendable {
    let connection: TCPConnection
    let request: UpstreamRequest
    fileprivate let reader: Mutex<MessageReader>
    private let upstream: Upstream
    private let hasEnded = Mutex(false)

    fileprivate init(
        upstream: Upstream, connection: TCPConnection, reader: MessageReader, request: UpstreamRequest
    ) {
        self.upstream = upstream
        self.connection = connection
        self.reader = Mutex(reader)
        self.request = request
    }

    fileprivate var isOver: Bool { hasEnded.withLock { $0 } }

    /// Reads the whole body and records the request.
    @discardableResult
    func receiveBody() throws -> UpstreamRequest {
        var whole = request
        try reader.withLock { reader in
            if request["Transfer-Encoding"] != nil {
                (whole.body, whole.rawBody, whole.trailers) = try reader.takeChunked()
            } else if let length = request["Content-Length"].flatMap({ Int($0) }) {
                whole.body = try reader.take(length)
                whole.rawBody = whole.body
            }
        }
        upstream.record(whole)
        return whole
    }

    /// Records the request without reading its body.
    func recordHead() { upstream.record(request) }

    /// Reads that many bytes, whatever they are.
    func receive(_ count: Int) throws -> [UInt8] { try reader.withLock { try $0.take(count) } }

    /// Reads until the gateway ends the connection.
    func receiveRest() throws -> [UInt8] { try reader.withLock { try $0.takeAll() } }

    func send(_ text: String) throws { try connection.stream.write(text.utf8) }
    func send(_ bytes: [UInt8]) throws { try connection.stream.write(bytes) }

    /// Ends the connection after what was sent.
    func close() {
        hasEnded.withLock { $0 = true }
        connection.close()
    }

    /// Ends the connection with a reset.
    func reset() {
        hasEnded.withLock { $0 = true }
        connection.reset()
    }
}

extension Upstream {
    /// 200 with a text of known length.
    static func answer(_ text: String, fields: String = "") -> Script {
        respond("HTTP/1.1 200 OK\r\nContent-Length: \(text.utf8.count)\r\n\(fields)\r\n\(text)")
    }

    /// The given bytes, after the whole request.
    static func respond(_ bytes: String, closes: Bool = false) -> Script {
        { exchange in
            try exchange.receiveBody()
            try exchange.send(bytes)
            if closes { exchange.close() }
        }
    }
}

extension TCPConnection {
    /// Ends both directions, and so wakes a thread that reads.
    fileprivate func shutdownBoth() {
        shutdownRead()
        shutdownWrite()
    }
}
