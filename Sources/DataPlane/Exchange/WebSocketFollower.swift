/// Follows the frames of one direction of a WebSocket (RFC 6455 section 5.2) as far as it takes to know
/// whether the closing frame has passed: a connection that ends without one was cut, whatever TCP says of it.
struct WebSocketFollower {
    private static let closing: UInt8 = 8

    /// Bytes of the frame's payload that are still to come.
    private var rest: UInt64 = 0
    private var length: UInt64 = 0
    /// Bytes of the frame's header that have passed, where its length ends, and how many there are.
    private var headerCount: UInt8 = 0
    private var lengthEnd: UInt8 = 2
    private var headerSize: UInt8 = 2
    private var opcode: UInt8 = 0
    /// Whether the closing frame has passed; nothing is said after it.
    private(set) var hasClosed = false

    init() {}

    mutating func follow(_ bytes: Span<UInt8>) {
        var index = 0
        while index < bytes.count, !hasClosed {
            if rest > 0 {
                let passed = min(rest, UInt64(bytes.count - index))
                rest -= passed
                index += Int(passed)
            } else {
                takeHeader(bytes[index])
                index += 1
            }
        }
    }

    private mutating func takeHeader(_ byte: UInt8) {
        if headerCount == 0 {
            opcode = byte & 15
        } else if headerCount == 1 {
            let short = byte & 0x7F
            lengthEnd = short == 127 ? 10 : short == 126 ? 4 : 2
            length = short < 126 ? UInt64(short) : 0
            headerSize = lengthEnd + (byte & 0x80 == 0 ? 0 : 4)
        } else if headerCount < lengthEnd {
            length = length << 8 | UInt64(byte)
        }
        headerCount += 1
        guard headerCount >= 2, headerCount == headerSize else { return }
        headerCount = 0
        rest = length
        hasClosed = opcode == Self.closing
    }
}
