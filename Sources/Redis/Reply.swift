internal import CHiredis

/// What kind of value a reply is.
package enum ReplyKind: Sendable { case string, status, error, integer, null, array }

/// One value of a reply. Good until the reader is asked for the next reply.
@safe
package struct Reply {
    private let arena: UnsafeMutablePointer<gw_reply_arena>
    private let index: Int

    init(arena: UnsafeMutablePointer<gw_reply_arena>, index: Int) {
        unsafe self.arena = unsafe arena
        self.index = index
    }

    private var node: gw_reply_node { unsafe arena.pointee.nodes[index] }

    /// What the value is.
    package var kind: ReplyKind {
        switch node.type {
        case REDIS_REPLY_STRING: return .string
        case REDIS_REPLY_STATUS: return .status
        case REDIS_REPLY_ERROR: return .error
        case REDIS_REPLY_INTEGER: return .integer
        case REDIS_REPLY_ARRAY: return .array
        default: return .null
        }
    }

    /// 0 unless the value is an integer.
    package var integer: Int64 { node.integer }

    /// Elements of an array, 0 for anything else.
    package var count: Int { Int(node.count) }

    /// - Parameter position: below `count`.
    package func element(_ position: Int) -> Reply {
        precondition(position >= 0 && position < count, "no such element")
        return unsafe Reply(arena: arena, index: Int(node.first) + position)
    }

    /// The bytes of a string, a status or an error.
    package var bytes: Span<UInt8> {
        @_lifetime(borrow self)
        get {
            let start = unsafe arena.pointee.text.map { unsafe $0 + Int(node.text) }
            let span = unsafe Span(
                _unsafeElements: UnsafeBufferPointer(
                    start: UnsafeRawPointer(start)?.assumingMemoryBound(to: UInt8.self),
                    count: start == nil ? 0 : Int(node.text_count)))
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }

    /// A copy of the bytes, for slow paths.
    package var byteArray: [UInt8] {
        let bytes = bytes
        return unsafe bytes.withUnsafeBufferPointer { unsafe Array($0) }
    }

    /// The same as text, for slow paths; what is not UTF-8 becomes U+FFFD.
    package var text: String { String(decoding: byteArray, as: UTF8.self) }
}

/// Reads replies from a stream of bytes (RESP2). Replies are built in an arena that is used again and again:
/// once it has grown to the size of the usual reply, reading allocates nothing.
@safe
package final class ReplyReader {
    /// Elements of one reply; the largest that is asked for is a page of keys.
    private static let nodesMax: UInt32 = 1 << 18
    /// Bytes of all texts of one reply.
    private static let textBytesMax: UInt32 = 16 << 20
    /// Bytes fed and not read yet: the longest text, and one read beyond it. hiredis itself would keep
    /// collecting a text or a line that never ends.
    private static let unreadBytesMax = Int(textBytesMax) + 1 << 20

    private static let tooLarge = "the answer is too large, or not Redis's protocol"

    private let arena: UnsafeMutablePointer<gw_reply_arena>
    private var reader: UnsafeMutablePointer<redisReader>
    private var isOverfull = false

    /// A reader of a new connection.
    package init() {
        unsafe arena = .allocate(capacity: 1)
        unsafe arena.initialize(to: gw_reply_arena())
        unsafe arena.pointee.node_limit = Self.nodesMax
        unsafe arena.pointee.text_limit = Self.textBytesMax
        unsafe reader = Self.makeReader(arena)
    }

    private static func makeReader(
        _ arena: UnsafeMutablePointer<gw_reply_arena>
    ) -> UnsafeMutablePointer<redisReader> {
        guard let reader = unsafe gw_reader_create(arena) else {
            preconditionFailure("no memory for a reader of replies")
        }
        return unsafe reader
    }

    deinit {
        unsafe redisReaderFree(reader)
        unsafe free(arena.pointee.nodes)
        unsafe free(arena.pointee.text)
        unsafe arena.deallocate()
    }

    /// Forgets everything, for a new connection.
    package func reset() {
        unsafe redisReaderFree(reader)
        unsafe reader = Self.makeReader(arena)
        isOverfull = false
    }

    /// Takes bytes as they came. `next` tells when they were too many.
    package func feed(_ bytes: Span<UInt8>) {
        let unread = unsafe Int(reader.pointee.len) - Int(reader.pointee.pos)
        guard !isOverfull, unread + bytes.count <= Self.unreadBytesMax else {
            isOverfull = true
            return
        }
        unsafe bytes.withUnsafeBytes { raw in
            _ = unsafe redisReaderFeed(
                reader, raw.baseAddress?.assumingMemoryBound(to: CChar.self), raw.count)
        }
    }

    /// The next whole reply, or nil when more bytes are needed.
    ///
    /// - Throws: when the bytes are not RESP, or a reply is over the bounds.
    package func next() throws(RedisError) -> Reply? {
        guard !isOverfull else { throw .protocolViolation(Self.tooLarge) }
        var object: UnsafeMutableRawPointer?
        guard unsafe redisReaderGetReply(reader, &object) == REDIS_OK else {
            let isTooLarge = unsafe reader.pointee.err == REDIS_ERR_OOM
            throw .protocolViolation(isTooLarge ? Self.tooLarge : "the answer is not Redis's protocol")
        }
        return unsafe object == nil ? nil : Reply(arena: arena, index: 0)
    }
}
