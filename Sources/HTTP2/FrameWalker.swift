import Reactor

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
    private var flags: UInt8 = 0
    private var stream: UInt32 = 0
    /// Whom a PRIORITY frame makes its stream depend on.
    private var dependency: UInt32 = 0
    private var highestStream: UInt32 = 0
    /// Streams that the peer has passed over, and so closed (RFC 9113 section 5.1.1); nobody honest does it
    /// often.
    private var gaps = InlineArray<4, Range<UInt32>>(repeating: 0..<0)
    private var gapCount = 0
    /// Which of the last 256 streams the peer has ended. The library forgets them, and content that comes on
    /// them still is an error (section 5.1); on streams that only we have ended it may be under way.
    private var ended = InlineArray<4, UInt64>(repeating: 0)
    /// What a frame came for that the library would only ignore, but that the connection must end with: a
    /// head on a stream that was passed over, content on one that the peer has ended, a priority of the
    /// connection itself or of a stream by itself (section 6.3, RFC 7540 section 5.3.1).
    package private(set) var forbidden: HTTP2Error?
    private var isInHead = false
    private var hasBegun = false
    private var endsHead = false

    /// Whether the preface or a header block has begun whose last byte has not come.
    package var isAwaitingHead: Bool { !endsHead || isInHead && skipped > 0 }

    package init() {}

    /// The next frame whose head ends at or behind `offset`, which moves behind it; nil when the bytes are
    /// over.
    package mutating func next(
        _ bytes: Span<UInt8>, _ offset: inout Int
    ) -> (kind: HTTP2FrameKind, length: Int)? {
        let skips = min(skipped, bytes.count - offset)
        skipped -= skips
        offset += skips
        if headCount == 0, bytes.count - offset >= 9 {
            // The whole head at once, as it nearly always comes.
            let word = bytes.word(at: offset).byteSwapped
            type = UInt8(truncatingIfNeeded: word >> 32)
            length = Int(word >> 40)
            if type != HTTP2FrameKind.priority.rawValue {
                flags = UInt8(truncatingIfNeeded: word >> 24)
                stream = (UInt32(truncatingIfNeeded: word) << 8 | UInt32(bytes[offset + 8])) & 0x7FFF_FFFF
                offset += 9
                return take(bytes, &offset, payload: length)
            }
            length = 0
        }
        while offset < bytes.count {
            let byte = bytes[offset]
            offset += 1
            headCount += 1
            switch headCount {
            case 1...3: length = length << 8 | Int(byte)
            case 4: type = byte
            case 5: flags = byte
            case 6...8: stream = stream << 8 | UInt32(byte)
            case 9:
                stream = (stream << 8 | UInt32(byte)) & 0x7FFF_FFFF
                if type == HTTP2FrameKind.priority.rawValue, length == 5 { continue }
                return take(bytes, &offset, payload: length)
            case 10...13:
                dependency = dependency << 8 | UInt32(byte)
                if headCount == 13 { return take(bytes, &offset, payload: 1) }
            default: break
            }
        }
        return nil
    }

    /// A frame is known as far as it has to be; `payload` bytes of it follow.
    private mutating func take(
        _ bytes: Span<UInt8>, _ offset: inout Int, payload: Int
    ) -> (kind: HTTP2FrameKind, length: Int) {
        let kind = HTTP2FrameKind(rawValue: type) ?? .unknown
        note(kind)
        let frame = (kind: kind, length: length)
        let skips = min(payload, bytes.count - offset)
        skipped = payload - skips
        offset += skips
        stream = 0
        dependency = 0
        headCount = 0
        length = 0
        return frame
    }

    private mutating func note(_ kind: HTTP2FrameKind) {
        if !hasBegun {
            hasBegun = true
            endsHead = true
        }
        // Inside a header block, whatever it is: the library ends the connection for it (section 6.10).
        let isIntruding = isInHead && !endsHead && kind != .continuation
        isInHead = kind == .headers || kind == .continuation
        if isInHead { endsHead = flags & 0x4 != 0 }
        if isIntruding { return }
        switch kind {
        case .priority:
            if stream == 0 || stream == dependency & 0x7FFF_FFFF { forbidden = .protocolError }
        case .headers:
            guard stream & 1 == 1 else { return }
            if stream > highestStream { open() } else { checkPast() }
            if flags & 0x1 != 0 { markEnded() }
        case .data:
            checkPast()
            if flags & 0x1 != 0 { markEnded() }
        case .resetStream: markEnded()
        default: break
        }
    }

    private mutating func open() {
        if stream > highestStream + 2, highestStream > 0 || stream > 1 {
            gaps[gapCount & 3] = highestStream + 1..<stream
            gapCount &+= 1
        }
        if stream - highestStream >= 512 {
            ended = InlineArray(repeating: 0)
        } else {
            var passed = highestStream + 1 | 1
            while passed <= stream {
                ended[Self.word(passed)] &= ~Self.bit(passed)
                passed += 2
            }
        }
        highestStream = stream
    }

    private mutating func checkPast() {
        if isRemembered, ended[Self.word(stream)] & Self.bit(stream) != 0 { forbidden = .streamClosed }
        for index in 0..<min(gapCount, 4) where gaps[index].contains(stream) { forbidden = .protocolError }
    }

    private mutating func markEnded() {
        if isRemembered { ended[Self.word(stream)] |= Self.bit(stream) }
    }

    /// Whether the stream of this frame is one of the last 256 of the peer.
    private var isRemembered: Bool {
        stream & 1 == 1 && stream <= highestStream && highestStream - stream < 512
    }

    private static func word(_ stream: UInt32) -> Int { Int(stream >> 7 & 3) }
    private static func bit(_ stream: UInt32) -> UInt64 { 1 << UInt64(stream >> 1 & 63) }
}
