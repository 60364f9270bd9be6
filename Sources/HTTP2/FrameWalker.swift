/// Follows the frames of a caller's connection by their heads alone (RFC 9113 section 4.1).
///
/// The library says nothing of frames that it ignores, such as those on streams that are over, and an
/// attacker may send any number of them. This sees all.
package struct FrameWalker {
    /// Bytes of the connection preface in front of the first frame (RFC 9113 section 3.4).
    private var skipped: Int = 24
    private var headCount = 0
    private var length = 0
    private var type: UInt8 = 0
    private var stream: UInt32 = 0
    private var highestStream: UInt32 = 0
    /// Streams that the peer has passed over, and so closed (RFC 9113 section 5.1.1); nobody honest does it
    /// often.
    private var gaps = InlineArray<4, Range<UInt32>>(repeating: 0..<0)
    private var gapCount = 0
    /// Whether a frame came that the library would only ignore, but that the connection must end with: a head
    /// on a stream that was passed over, or a priority of the connection itself (section 6.3).
    package private(set) var hasSeenForbidden = false

    package init() {}

    /// The next frame whose head ends at or behind `offset`, which moves behind it; nil when the bytes are
    /// over.
    package mutating func next(
        _ bytes: Span<UInt8>, _ offset: inout Int
    ) -> (kind: HTTP2FrameKind, length: Int)? {
        let skips = min(skipped, bytes.count - offset)
        skipped -= skips
        offset += skips
        while offset < bytes.count {
            let byte = bytes[offset]
            offset += 1
            headCount += 1
            switch headCount {
            case 1...3: length = length << 8 | Int(byte)
            case 4: type = byte
            case 6...8: stream = stream << 8 | UInt32(byte)
            case 9:
                noteStream(stream << 8 | UInt32(byte))
                stream = 0
                let frame = (kind: HTTP2FrameKind(rawValue: type) ?? .unknown, length: length)
                skipped = length
                headCount = 0
                length = 0
                let payload = min(skipped, bytes.count - offset)
                skipped -= payload
                offset += payload
                return frame
            default: break
            }
        }
        return nil
    }

    private mutating func noteStream(_ bits: UInt32) {
        let stream = bits & 0x7FFF_FFFF
        if type == HTTP2FrameKind.priority.rawValue, stream == 0 { hasSeenForbidden = true }
        guard type == HTTP2FrameKind.headers.rawValue, stream & 1 == 1 else { return }
        if stream > highestStream {
            if stream > highestStream + 2, highestStream > 0 || stream > 1 {
                gaps[gapCount & 3] = highestStream + 1..<stream
                gapCount &+= 1
            }
            highestStream = stream
            return
        }
        for index in 0..<min(gapCount, 4) where gaps[index].contains(stream) { hasSeenForbidden = true }
    }
}
