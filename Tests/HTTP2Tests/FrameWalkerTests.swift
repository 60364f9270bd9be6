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
        #expect(!walker.hasSeenForbidden)
    }

    @Test(
        "a stream that was passed over cannot be opened, and the connection has no priority",
        arguments: [
            ([(1, 1), (1, 3), (1, 5), (1, 1), (1, 3)], false), ([(1, 5), (1, 3)], true),
            ([(1, 5), (1, 1)], true),
            ([(1, 1), (1, 9), (0, 5), (3, 7)], false), ([(1, 1), (1, 9), (1, 11), (1, 7)], true),
            ([(2, 3), (2, 0x8000_0001)], false), ([(2, 0)], true), ([(2, 0x8000_0000)], true),
        ] as [([(UInt8, UInt32)], Bool)])
    func order(_ frames: [(UInt8, UInt32)], _ isForbidden: Bool) {
        var walker = FrameWalker()
        var bytes = Self.preface
        for (type, stream) in frames {
            let head = stride(from: 24, through: 0, by: -8).map { UInt8(stream >> UInt32($0) & 255) }
            bytes += [0, 0, 2, type, 0] + head + [7, 7]
        }
        var offset = 0
        while walker.next(bytes.span, &offset) != nil {}
        #expect(walker.hasSeenForbidden == isForbidden)
    }
}
