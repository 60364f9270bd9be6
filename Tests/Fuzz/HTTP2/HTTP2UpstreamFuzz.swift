import HTTP2
import HTTPWire
import Reactor
import Synchronization

// Frames from a hostile upstream, behind good settings. Whatever head the session accepts as an answer
// becomes one HTTP/1.1 head that the strict parser either takes whole or refuses, with the framing that is
// said of it; what opens a tunnel is a 101 and nothing else; trailers end where they should.

private let limits = HeadLimits(headBytes: 4_096, fields: 64, targetBytes: 512)

/// Has asked three things, and reads what comes back.
final class Asker: HTTP2Owner {
    private enum Kind: UInt64 {
        case get = 1
        case head, tunnel
    }

    let engine = HTTP2Engine(limits: limits)
    private let head = Mutable(RequestHead())
    private let plain = Block.constant("GET /x HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
    private let upgrade = Block.constant(
        "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            + "Sec-WebSocket-Key: ab\r\n\r\n"
    )
    private var hasHead = [false, false, false, false]

    init() { engine.attach(self) }

    func ask(_ session: HTTP2Session) {
        hasHead = [false, false, false, false]
        for kind in [Kind.get, .head, .tunnel] {
            let text = kind == .tunnel ? upgrade : plain
            guard case .complete = RequestParser.parse(text.readable, limits: limits, into: &head.value)
            else {
                preconditionFailure("a request of our own")
            }
            let stream = engine.submitRequest(
                session, text, head, scheme: "https", protocolName: kind == .tunnel ? 56..<65 : 0..<0,
                tag: kind.rawValue, hasBody: kind == .tunnel)
            precondition(stream != nil, "a first request is taken")
        }
    }

    func http2Head(_ session: HTTP2Session, stream: Int32, _ kind: HTTP2HeadKind, endsStream: Bool) {
        guard let asked = Kind(rawValue: session.tag(ofStream: stream)) else { return }
        let index = Int(asked.rawValue)
        var text = Block.allocate(capacity: engine.block.value.textBytesMax + 256)
        defer { text.deallocate() }
        if hasHead[index] {
            checkTrailers(&text)
            return
        }
        var writer = ByteWriter(text)
        if asked == .tunnel, engine.block.value.isSuccess {
            engine.block.value.writeSwitch(
                into: &writer, protocolName: upgrade.span(56..<65), key: plain.span(0..<3))
            text.commit(writer)
            hasHead[index] = true
            check(text, status: 101, isChunked: false, .get)
            return
        }
        guard
            let written = engine.block.value.writeResponse(
                into: &writer, endsStream: endsStream, hasBody: asked != .head)
        else { return }
        text.commit(writer)
        hasHead[index] = written.status >= 200
        check(text, status: written.status, isChunked: written.isChunked, asked == .head ? .head : .get)
    }

    private func check(_ text: Block, status: Int, isChunked: Bool, _ method: Method) {
        var parsed = ResponseHead()
        let wide = HeadLimits(headBytes: 131_072, fields: 256, targetBytes: 0)
        switch ResponseParser.parse(text.readable, method: method, limits: wide, into: &parsed) {
        case .complete(let count):
            precondition(count == text.count, "a head ends early: what follows would be another answer")
            precondition(parsed.status == status, "another status")
            if isChunked {
                guard case .chunked = parsed.framing else {
                    preconditionFailure("a body without its framing")
                }
            }
        case .incomplete: preconditionFailure("a head does not end")
        case .refused: break
        }
    }

    private func checkTrailers(_ text: inout Block) {
        text.append("0\r\n")
        var writer = ByteWriter(text)
        engine.block.value.writeTrailers(into: &writer)
        text.commit(writer)
        var decoder = ChunkDecoder()
        var offset = 0
        while true {
            switch decoder.next(text.readable, &offset) {
            case .trailer: continue
            case .end:
                precondition(offset == text.count, "trailers end early")
                return
            case .invalid: return
            case .data, .needMore: preconditionFailure("trailers do not end")
            }
        }
    }

    func http2Settings(_ session: HTTP2Session) {}

    func http2Data(_ session: HTTP2Session, stream: Int32, _ bytes: Span<UInt8>) {
        session.consumeConnection(bytes.count)
        session.consumeStream(stream, bytes.count)
    }

    func http2DataEnded(_ session: HTTP2Session, stream: Int32) {}
    func http2GoAway(_ session: HTTP2Session, lastStream: Int32) {}
    func http2Closed(_ session: HTTP2Session, stream: Int32, tag: UInt64, code: UInt32) {}

    func http2BodyAvailable(tag: UInt64) -> HTTP2BodyState {
        HTTP2BodyState(count: 0, isEnd: false, hasTrailers: false)
    }

    func http2TakeBody(tag: UInt64, _ count: Int, into frames: inout Block) -> Bool { false }
    func http2SubmitTrailers(_ session: HTTP2Session, stream: Int32, tag: UInt64) {}
    func http2SideEnded(_ session: HTTP2Session, stream: Int32, tag: UInt64) {}
}

private let asker = Mutex(Asker())
/// Settings that allow tunnels.
private let opening: [UInt8] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1]

@c(LLVMFuzzerTestOneInput)
public func fuzz(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = unsafe opening + Array(UnsafeBufferPointer(start: data, count: count))
    asker.withLock { asker in
        guard var session = asker.engine.makeClient() else { return }
        asker.ask(session)
        _ = asker.engine.send(session)
        // In two parts, so that heads are cut.
        let half = bytes.count / 2
        for part in [Array(bytes[..<half]), Array(bytes[half...])] {
            guard asker.engine.receive(session, part.span) else { break }
            _ = asker.engine.send(session)
        }
        asker.engine.free(&session)
    }
    return 0
}
