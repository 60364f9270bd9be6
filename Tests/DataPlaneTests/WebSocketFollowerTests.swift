import Testing

@testable import DataPlane

/// Frames of a WebSocket, in whatever pieces they come.
@Suite("Frames of a WebSocket")
struct WebSocketFollowerTests {
    private static func frame(_ opcode: UInt8, length: Int, isMasked: Bool) -> [UInt8] {
        let mask: UInt8 = isMasked ? 0x80 : 0
        var bytes: [UInt8] = [0x80 | opcode]
        switch length {
        case ..<126: bytes.append(mask | UInt8(length))
        case ..<65_536: bytes += [mask | 126, UInt8(length >> 8), UInt8(length & 255)]
        default: bytes += [mask | 127] + (0..<8).reversed().map { UInt8(length >> ($0 * 8) & 255) }
        }
        // A payload that looks like closing frames.
        return bytes + [UInt8](repeating: 0x88, count: length + (isMasked ? 4 : 0))
    }

    @Test(
        "the closing frame is known among frames of every length, and what looks like one is not",
        arguments: [1, 2, 3, 7, 1_000, 1 << 20])
    func closing(_ step: Int) {
        for isMasked in [false, true] {
            let frames = [0, 1, 125, 126, 65_535, 65_536, 0].flatMap {
                Self.frame(2, length: $0, isMasked: isMasked) + Self.frame(9, length: 4, isMasked: isMasked)
            }
            var follower = WebSocketFollower()
            func take(_ bytes: [UInt8]) {
                for start in stride(from: 0, to: bytes.count, by: step) {
                    follower.follow(Array(bytes[start..<min(bytes.count, start + step)]).span)
                }
            }
            take(frames)
            #expect(!follower.hasClosed)
            take(Self.frame(8, length: 2, isMasked: isMasked))
            #expect(follower.hasClosed)
        }
    }
}
