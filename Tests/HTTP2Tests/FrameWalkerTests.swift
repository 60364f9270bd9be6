import HTTP2
import Testing

/// Floods of frames that the library ignores are seen by the walker alone.
@Suite("Frame walker")
struct FrameWalkerTests {
    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    static func frame(_ type: UInt8, _ payload: Int) -> [UInt8] {
        [UInt8(payload >> 16), UInt8(payload >> 8 & 255), UInt8(payload & 255), type, 0, 0, 0, 0, 1]
            + [UInt8](repeating: 9, count: payload)
    }

    @Test("no split of the bytes hides a frame or invents one", arguments: [1, 2, 3, 5, 8, 9, 10, 33, 1_000])
    func splits(_ size: Int) {
        let kinds: [UInt8] = [4, 0, 0, 6, 8, 1, 9, 3, 77]
        let lengths = [18, 0, 300, 8, 4, 70, 0, 4, 1]
        let bytes = Self.preface + zip(kinds, lengths).flatMap(Self.frame)
        var walker = FrameWalker()
        var seen: [(UInt8, Int)] = []
        for start in stride(from: 0, to: bytes.count, by: size) {
            let part = Array(bytes[start..<min(bytes.count, start + size)])
            var offset = 0
            while let frame = walker.next(part.span, &offset) {
                seen.append((frame.kind.rawValue, frame.length))
            }
            #expect(offset == part.count)
        }
        #expect(seen.map(\.0) == [4, 0, 0, 6, 8, 1, 9, 3, HTTP2FrameKind.unknown.rawValue])
        #expect(seen.map(\.1) == lengths)
        #expect(walker.forbidden == nil)
    }

    struct Frame: Sendable {
        var type: UInt8
        var stream: UInt32
        var flags: UInt8 = 0
        var payload: [UInt8] = [7, 7]

        static func head(_ stream: UInt32, ends: Bool = false, isWhole: Bool = true) -> Frame {
            Frame(type: 1, stream: stream, flags: (ends ? 1 : 0) | (isWhole ? 4 : 0))
        }
        static func data(_ stream: UInt32, ends: Bool = false) -> Frame {
            Frame(type: 0, stream: stream, flags: ends ? 1 : 0)
        }
        static func priority(_ stream: UInt32, dependsOn other: UInt8) -> Frame {
            Frame(type: 2, stream: stream, payload: [0x80, 0, 0, other, 9])
        }
        static func reset(_ stream: UInt32) -> Frame { Frame(type: 3, stream: stream) }

        var bytes: [UInt8] {
            let number = stride(from: 24, through: 0, by: -8).map { UInt8(stream >> UInt32($0) & 255) }
            return [0, 0, UInt8(payload.count), type, flags] + number + payload
        }
    }

    @Test(
        "what the library would ignore, but must not pass, is seen",
        arguments: [
            // Heads on streams that were passed over.
            ([.head(1), .head(3), .head(5), .head(1), .head(3)], nil),
            ([.head(5), .head(3)], .protocolError),
            ([.head(5), .head(1)], .protocolError), ([.head(1), .head(9), .data(5)], .protocolError),
            ([.head(1), .head(9), .head(11), .head(7)], .protocolError),
            ([.head(1), .head(9), .reset(7)], nil),
            // Priority of the connection, and of streams by themselves.
            ([Frame(type: 2, stream: 3), Frame(type: 2, stream: 0x8000_0001)], nil),
            ([Frame(type: 2, stream: 0)], .protocolError),
            ([Frame(type: 2, stream: 1 << 31)], .protocolError),
            ([.priority(3, dependsOn: 1), .priority(9, dependsOn: 7)], nil),
            ([.priority(3, dependsOn: 3)], .protocolError),
            // Content on streams that the peer has ended.
            ([.head(1), .data(1), .data(1, ends: true), .head(3, ends: true), .reset(3), .reset(1)], nil),
            ([.head(1, ends: true), .data(1)], .streamClosed),
            ([.head(1), .reset(1), .head(1)], .streamClosed),
            ([.head(1), .data(1, ends: true), .head(3), .data(1)], .streamClosed),
            ([.head(1, ends: true), .head(511), .data(1)], .streamClosed),
            ([.head(1, ends: true), .head(513), .head(515), .data(515)], nil),
            // What comes inside a block is the library's to refuse.
            ([.head(1, ends: true, isWhole: false), .data(1)], nil),
            ([.head(1, ends: true, isWhole: false), .head(1)], nil),
            // A number that was used, and is a new stream's 512 later.
            ([.head(1, ends: true), .head(257), .head(513), .data(513)], nil),
        ] as [([Frame], HTTP2Error?)], [1, 4, 1_000])
    func order(_ given: ([Frame], HTTP2Error?), _ size: Int) {
        var walker = FrameWalker()
        let bytes = Self.preface + given.0.flatMap(\.bytes)
        var count = 0
        for start in stride(from: 0, to: bytes.count, by: size) {
            let part = Array(bytes[start..<min(bytes.count, start + size)])
            var offset = 0
            while walker.next(part.span, &offset) != nil { count += 1 }
        }
        #expect(count == given.0.count)
        #expect(walker.forbidden == given.1)
    }
}
