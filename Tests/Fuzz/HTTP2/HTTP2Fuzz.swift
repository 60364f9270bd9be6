import HTTP2
import HTTPWire
import Reactor
import Synchronization

// Frames from a hostile caller, behind a good preface. What must hold besides "no crash": whatever head the
// session accepts becomes one HTTP/1.1 head that the strict parser either takes whole or refuses, never one
// that ends early or goes on into what follows; trailers end where they should; and the walker counts frames
// the same however the bytes are split.

private let limits = HeadLimits(headBytes: 4_096, fields: 32, targetBytes: 512)

/// Answers every request that is whole, as the gateway would.
final class Caller: HTTP2Owner {
    let engine = HTTP2Engine(limits: limits)
    private var answered = Block.constant("HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\n\r\n")
    private let head = Mutable(ResponseHead())

    init() {
        engine.attach(self)
        guard
            case .complete = ResponseParser.parse(
                answered.readable, method: .get, limits: limits, into: &head.value)
        else { preconditionFailure("an answer of our own") }
    }

    func http2Head(_ session: HTTP2Session, stream: Int32, _ kind: HTTP2HeadKind, endsStream: Bool) {
        if kind == .request { checkRequest(endsStream) } else { checkTrailers() }
        session.setTag(UInt64(stream), ofStream: stream)
        if endsStream { answer(session, stream) }
    }

    private func answer(_ session: HTTP2Session, _ stream: Int32) {
        engine.submitResponse(
            session, stream: stream, tag: UInt64(stream), answered, head, status: 200, hasBody: true)
    }

    private func checkRequest(_ endsStream: Bool) {
        var text = Block.allocate(capacity: engine.block.value.textBytesMax)
        defer { text.deallocate() }
        var writer = ByteWriter(text)
        guard
            let body = engine.block.value.writeRequest(into: &writer, endsStream: endsStream, nonce: (1, 2))
        else { return }
        text.commit(writer)
        var tabled = RequestHead()
        let wide = HeadLimits(headBytes: 131_072, fields: 256, targetBytes: 131_072)
        let isTaken: Bool
        if case .complete = RequestParser.read(tabled: text.readable, limits: wide, into: &tabled) {
            isTaken = true
        } else {
            isTaken = false
        }
        text.consume(FieldTable.end(text.readable))
        var parsed = RequestHead()
        switch RequestParser.parse(text.readable, limits: wide, into: &parsed) {
        case .complete(let count):
            precondition(isTaken && tabled.fieldCount == parsed.fieldCount, "a table tells of other lines")
            precondition(count == text.count, "a head ends early: what follows would be another request")
            precondition(
                !(endsStream && parsed.body == .chunked), "a request without a body announces one")
            if case .chunked = body { precondition(parsed.body == .chunked, "a body without its framing") }
        case .incomplete: preconditionFailure("a head does not end: what follows would belong to it")
        case .refused: precondition(!isTaken, "a head is let through with its table")
        }
    }

    private func checkTrailers() {
        var text = Block.allocate(capacity: engine.block.value.textBytesMax + 16)
        defer { text.deallocate() }
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

    func http2DataEnded(_ session: HTTP2Session, stream: Int32) { answer(session, stream) }
    func http2GoAway(_ session: HTTP2Session, lastStream: Int32) {}
    func http2Closed(_ session: HTTP2Session, stream: Int32, tag: UInt64, code: UInt32) {}

    func http2BodyAvailable(tag: UInt64) -> HTTP2BodyState {
        HTTP2BodyState(count: 5, isEnd: true, hasTrailers: false)
    }

    func http2TakeBody(tag: UInt64, _ count: Int, into frames: inout Block) -> Bool {
        for _ in 0..<count { frames.append(byte: 0x78) }
        return true
    }

    func http2SubmitTrailers(_ session: HTTP2Session, stream: Int32, tag: UInt64) {}
    func http2SideEnded(_ session: HTTP2Session, stream: Int32, tag: UInt64) {}
}

private let caller = Mutex(Caller())
private let opening = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + [0, 0, 0, 4, 0, 0, 0, 0, 0]

@c(LLVMFuzzerTestOneInput)
public func fuzz(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = unsafe opening + Array(UnsafeBufferPointer(start: data, count: count))
    let whole = frames(bytes, cut: bytes.count)
    precondition(whole == frames(bytes, cut: bytes.count / 2), "frames hide in a split")
    caller.withLock { caller in
        guard var session = caller.engine.makeServer() else { return }
        if caller.engine.receive(session, bytes.span) { _ = caller.engine.send(session) }
        caller.engine.free(&session)
    }
    return 0
}

private func frames(_ bytes: [UInt8], cut: Int) -> Int {
    var walker = FrameWalker()
    var seen = 0
    for piece in [Array(bytes[..<cut]), Array(bytes[cut...])] {
        var offset = 0
        while walker.next(piece.span, &offset) != nil { seen += 1 }
    }
    return seen
}
