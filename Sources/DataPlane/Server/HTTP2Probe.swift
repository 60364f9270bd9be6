import HTTP2
import HTTPWire
import Reactor
import TLS

/// One question over HTTP/2, for endpoints that may speak nothing else.
enum HTTP2Probe {
    private static let limits = HeadLimits(headBytes: 65_536, fields: 256, targetBytes: 32_768)

    /// Asks on a connection that has just been opened.
    ///
    /// - Parameter request: a head as HTTP/1.1 has it.
    /// - Returns: nil when the answer's status is good, else what is wrong.
    static func ask(
        _ connection: BlockingConnection, _ request: Block, isSecure: Bool, _ timeout: Int
    ) throws(ConnectionProblem) -> String? {
        let head = Mutable(RequestHead())
        defer { head.deallocate() }
        let engine = HTTP2Engine(limits: limits)
        let listener = Listener(engine.block)
        engine.attach(listener)
        guard case .complete = RequestParser.parse(request.readable, limits: limits, into: &head.value),
            var session = engine.makeClient()
        else { return "it cannot be asked over HTTP/2" }
        defer { engine.free(&session) }
        let number = engine.submitRequest(
            session, request, head, scheme: isSecure ? "https" : "http", protocolName: 0..<0, tag: 1,
            hasBody: false)
        guard number != nil else { return "it cannot be asked over HTTP/2" }
        var received = Block.allocate(capacity: 65_536)
        defer { received.deallocate() }
        // One time for all of it, as over HTTP/1.1.
        let deadline = MonotonicClock.nowMicroseconds() + Int64(timeout) * 1_000
        while true {
            if let status = listener.status {
                // A goodbye that does not arrive changes nothing.
                session.terminate(.none)
                try? send(engine, session, connection, timeout)
                return HealthCheck.problem(status: status)
            }
            try send(engine, session, connection, timeout)
            if listener.hasEnded { return "it ended the call without an answer" }
            let remaining = (deadline - MonotonicClock.nowMicroseconds()) / 1_000
            guard remaining > 0 else { return "it does not answer in time" }
            received.clear()
            guard try connection.receive(into: &received, timeoutMilliseconds: Int(remaining)) else {
                return "it closed the connection without an answer"
            }
            guard engine.receive(session, received.readable) else { return "it does not answer in HTTP/2" }
        }
    }

    private static func send(
        _ engine: HTTP2Engine, _ session: HTTP2Session, _ connection: BlockingConnection, _ timeout: Int
    ) throws(ConnectionProblem) {
        while engine.send(session), !engine.frames.value.isEmpty {
            try connection.send(engine.frames.value, timeoutMilliseconds: timeout)
        }
    }

    /// Hears of the answer's head; whatever follows does not matter.
    private final class Listener: HTTP2Owner {
        private let block: Mutable<HeaderBlock>
        private(set) var status: Int?
        private(set) var hasEnded = false

        init(_ block: Mutable<HeaderBlock>) { self.block = block }

        func http2Head(
            _ session: HTTP2Session, stream: Int32, _ kind: HTTP2HeadKind, endsStream: Bool
        ) {
            guard status == nil else { return }
            var text = Block.allocate(capacity: block.value.textBytesMax)
            defer { text.deallocate() }
            var writer = ByteWriter(text)
            guard let head = block.value.writeResponse(into: &writer, endsStream: endsStream, hasBody: true)
            else {
                hasEnded = true
                return
            }
            if head.status >= 200 { status = head.status }
        }

        func http2Closed(_ session: HTTP2Session, stream: Int32, tag: UInt64, code: UInt32) {
            hasEnded = true
        }

        func http2GoAway(_ session: HTTP2Session, lastStream: Int32) {}
        func http2Settings(_ session: HTTP2Session) {}
        func http2Data(_ session: HTTP2Session, stream: Int32, _ bytes: Span<UInt8>) {}
        func http2DataEnded(_ session: HTTP2Session, stream: Int32) {}
        func http2SideEnded(_ session: HTTP2Session, stream: Int32, tag: UInt64) {}
        func http2SubmitTrailers(_ session: HTTP2Session, stream: Int32, tag: UInt64) {}
        func http2BodyAvailable(tag: UInt64) -> HTTP2BodyState {
            HTTP2BodyState(count: 0, isEnd: true, hasTrailers: false)
        }
        func http2TakeBody(tag: UInt64, _ count: Int, into frames: inout Block) -> Bool { false }
    }
}
