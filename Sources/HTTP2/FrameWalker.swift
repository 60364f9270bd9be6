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
            case 9:
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
}
