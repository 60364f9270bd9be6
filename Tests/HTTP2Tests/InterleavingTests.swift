import HTTP2
import HTTPWire
import Reactor
import Testing

/// One engine reads the frames of many connections, and a head may come in parts: fields of one caller that
/// end up in another's request are a stolen identity.
@Suite("Heads of many connections at once")
struct InterleavingTests {
    /// Keeps the requests that arrive, in their order.
    final class Recorder: HTTP2Owner {
        let engine = HTTP2Engine(limits: HeadLimits(headBytes: 8_192, fields: 64, targetBytes: 1_024))
        var heads: [String] = []
        /// What a body is said to have; none of it is ever there.
        var bodyBytes = 0

        init() { engine.attach(self) }

        func http2Head(
            _ session: HTTP2Session, stream: Int32, _ kind: HTTP2HeadKind, endsStream: Bool
        ) {
            var text = Block.allocate(capacity: 65_536)
            defer { text.deallocate() }
            var writer = ByteWriter(text)
            let isRequest =
                engine.block.value.writeRequest(into: &writer, endsStream: endsStream, nonce: (1, 2)) != nil
            text.commit(writer)
            if isRequest { text.consume(FieldTable.end(text.readable)) }
            let bytes = text.readable
            let written = String(decoding: (0..<bytes.count).map { bytes[$0] }, as: UTF8.self)
            heads.append(isRequest ? written : "none")
        }

        func http2Settings(_ session: HTTP2Session) {}
        func http2Data(_ session: HTTP2Session, stream: Int32, _ bytes: Span<UInt8>) {}
        func http2DataEnded(_ session: HTTP2Session, stream: Int32) {}
        func http2GoAway(_ session: HTTP2Session, lastStream: Int32) {}
        func http2Closed(_ session: HTTP2Session, stream: Int32, tag: UInt64, code: UInt32) {}
        func http2BodyAvailable(tag: UInt64) -> HTTP2BodyState {
            HTTP2BodyState(count: bodyBytes, isEnd: true, hasTrailers: false)
        }
        func http2TakeBody(tag: UInt64, _ count: Int, into frames: inout Block) -> Bool { false }
        func http2SubmitTrailers(_ session: HTTP2Session, stream: Int32, tag: UInt64) {}
        func http2SideEnded(_ session: HTTP2Session, stream: Int32, tag: UInt64) {}
    }

    static let opening = FrameWalkerTests.preface + [0, 0, 0, 4, 0, 0, 0, 0, 0]

    /// Literals without indexing or coding (RFC 7541 section 6.2.2).
    static func block(_ owner: String) -> [UInt8] {
        let fields = [
            (":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", "/\(owner)"),
            ("authorization", "Bearer \(owner)"), ("cookie", "\(owner)=1"), ("cookie", "\(owner)=2"),
        ]
        var bytes: [UInt8] = []
        for (name, value) in fields {
            bytes.append(0)
            for text in [name, value] {
                bytes.append(UInt8(text.utf8.count))
                bytes += Array(text.utf8)
            }
        }
        return bytes
    }

    static func frame(
        _ type: UInt8, _ flags: UInt8, _ payload: [UInt8], stream: UInt8 = 1
    ) -> [UInt8] {
        let head: [UInt8] = [
            0, UInt8(payload.count >> 8), UInt8(payload.count & 255), type, flags, 0, 0, 0, stream,
        ]
        return head + payload
    }

    private static func text(_ owner: String) -> String {
        "GET /\(owner) HTTP/1.1\r\nHost: a.example\r\nauthorization: Bearer \(owner)\r\n"
            + "cookie: \(owner)=1; \(owner)=2\r\n\r\n"
    }

    @Test(
        "wherever a head is cut, another connection's in between leaves it alone", arguments: [false, true])
    func cut(_ continues: Bool) throws {
        let first = Self.block("first")
        var whole = Self.frame(1, 0x5, first)
        if continues {
            whole = Self.frame(1, 0x1, Array(first[..<40])) + Self.frame(9, 0x4, Array(first[40...]))
        }
        for split in 0...whole.count {
            let recorder = Recorder()
            var one = try #require(recorder.engine.makeServer())
            var other = try #require(recorder.engine.makeServer())
            var left = try #require(recorder.engine.makeServer())
            let isRead = [
                (one, Self.opening + whole[..<split]),
                // A third one begins, and never ends.
                (left, Self.opening + Self.frame(1, 0x1, Self.block("left"))),
                (other, Self.opening + Self.frame(1, 0x5, Self.block("other"))),
                (one, Array(whole[split...])),
            ].allSatisfy { recorder.engine.receive($0.0, $0.1.span) }
            #expect(isRead)
            #expect(recorder.heads.sorted() == [Self.text("first"), Self.text("other")], "cut at \(split)")
            recorder.engine.free(&one)
            recorder.engine.free(&other)
            recorder.engine.free(&left)
        }
    }
}
