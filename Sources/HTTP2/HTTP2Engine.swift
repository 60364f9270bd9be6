internal import CNghttp2
package import HTTPWire
package import Reactor

// nghttp2 under the worker's own reads and writes. It frames, compresses, keeps windows and checks order;
// what a stream means is its owner's business. One engine serves all sessions of a worker, because a worker
// handles one connection at a time: it holds the callbacks, one header block and one block of frames to send.

/// What an engine tells its owner during `receive` and `send`. An owner may submit, reset and terminate in
/// these calls, and must not free a session, receive or send.
package protocol HTTP2Owner: AnyObject {
    /// A header block is complete and stands in the engine's `block`.
    func http2Head(_ session: HTTP2Session, stream: Int32, _ kind: HTTP2HeadKind, endsStream: Bool)
    func http2Data(_ session: HTTP2Session, stream: Int32, _ bytes: Span<UInt8>)
    /// The peer has ended its side of a stream with a DATA frame.
    func http2DataEnded(_ session: HTTP2Session, stream: Int32)
    /// The peer takes no further streams than `lastStream`.
    func http2GoAway(_ session: HTTP2Session, lastStream: Int32)
    /// A stream is over for nghttp2. `code` is 0 after a regular end.
    func http2Closed(_ session: HTTP2Session, stream: Int32, tag: UInt64, code: UInt32)
    /// How much of a stream's body could be sent now.
    func http2BodyAvailable(tag: UInt64) -> HTTP2BodyState
    /// Moves bytes that `http2BodyAvailable` has promised.
    func http2TakeBody(tag: UInt64, _ count: Int, into frames: inout Block)
    /// Trailer fields are wanted now, as `http2BodyAvailable` has promised.
    func http2SubmitTrailers(_ session: HTTP2Session, stream: Int32, tag: UInt64)
    /// Our side of a stream has ended.
    func http2SideEnded(_ session: HTTP2Session, stream: Int32, tag: UInt64)
}

package struct HTTP2BodyState {
    package var count: Int
    /// Whether nothing follows these bytes.
    package var isEnd: Bool
    /// Whether trailer fields follow them.
    package var hasTrailers: Bool

    package init(count: Int, isEnd: Bool, hasTrailers: Bool) {
        self.count = count
        self.isEnd = isEnd
        self.hasTrailers = hasTrailers
    }
}

package enum HTTP2HeadKind { case request, response, interimOrTrailers }

package enum HTTP2FrameKind: UInt8 {
    case data, headers, priority, resetStream, settings, pushPromise, ping, goAway, windowUpdate, continuation
    case unknown
}

@safe
package final class HTTP2Engine {
    /// Streams that a peer may have open at once on one connection; nginx's number, and half of what would
    /// let one connection hold more memory than its share.
    package static let streamsMax = 128
    /// Body bytes that may be under way to us on one stream: kept in one buffer while its upstream stalls.
    package static let streamWindow = 65_535
    /// The same for all streams of a connection.
    package static let connectionWindow: Int32 = 1 << 20
    /// Bytes of an upstream's header block.
    private static let answerHeadBytes = 65_536
    /// Bytes of frames that one `send` collects.
    package static let framesBytes = 131_072
    /// SETTINGS and PING acknowledgements that may wait for a peer that does not read: more than the owner's
    /// own count lets through in one read.
    private static let acknowledgementsMax = 1_000
    /// Frames of one header block (CVE-2024-28182).
    private static let continuationsMax = 8
    /// Streams that a peer may reset at once, and a second after that, before the library ends the
    /// connection: a second line behind the owner's own count.
    private static let resetBurst: UInt64 = 1_000
    private static let resetsPerSecond: UInt64 = 100

    /// The header block that is being received.
    package let block: Mutable<HeaderBlock>
    /// Whether `block` is not complete.
    fileprivate var isBlockOpen = false
    /// Blocks whose rest has not come yet, by session: the bytes of others must not run into them.
    private var parts: [UInt: HeaderBlock.Part] = [:]
    /// What `send` has collected.
    package let frames: Mutable<Block>
    /// Lowercase names of the fields being submitted.
    let names: Mutable<Block>
    let fields: UnsafeMutablePointer<nghttp2_nv>
    static let fieldsMax = 272
    private let callbacks: OpaquePointer
    private let serverOptions: OpaquePointer
    private let clientOptions: OpaquePointer
    private let headBytes: Int
    /// Unretained: the owner outlives its engine.
    unowned(unsafe) private(set) var owner: (any HTTP2Owner)?

    /// - Parameter limits: on heads, as for HTTP/1.
    /// - Throws: nothing but running out of memory, which ends the process.
    package init(limits: HeadLimits) {
        // Answers may be longer than requests; the parser behind this has the last word on both.
        block = Mutable(HeaderBlock(bytesMax: max(limits.headBytes, Self.answerHeadBytes), fieldsMax: 256))
        frames = Mutable(.allocate(capacity: Self.framesBytes))
        names = Mutable(.allocate(capacity: 65_536))
        headBytes = limits.headBytes
        unsafe fields = .allocate(capacity: Self.fieldsMax)
        var made: OpaquePointer?
        unsafe nghttp2_session_callbacks_new(&made)
        guard let callbacks = unsafe made else { preconditionFailure("out of memory") }
        unsafe self.callbacks = callbacks
        unsafe serverOptions = Self.makeOptions(isServer: true)
        unsafe clientOptions = Self.makeOptions(isServer: false)
        installCallbacks()
    }

    deinit {
        unsafe nghttp2_session_callbacks_del(callbacks)
        unsafe nghttp2_option_del(serverOptions)
        unsafe nghttp2_option_del(clientOptions)
        unsafe fields.deallocate()
    }

    /// Names the owner; before the first session.
    package func attach(_ owner: any HTTP2Owner) { unsafe self.owner = owner }

    private static func makeOptions(isServer: Bool) -> OpaquePointer {
        var made: OpaquePointer?
        unsafe nghttp2_option_new(&made)
        guard let options = unsafe made else { preconditionFailure("out of memory") }
        unsafe nghttp2_option_set_no_auto_window_update(options, 1)
        unsafe nghttp2_option_set_no_closed_streams(options, 1)
        unsafe nghttp2_option_set_max_outbound_ack(options, acknowledgementsMax)
        unsafe nghttp2_option_set_max_continuations(options, continuationsMax)
        if isServer {
            unsafe nghttp2_option_set_stream_reset_rate_limit(options, resetBurst, resetsPerSecond)
        } else {
            unsafe nghttp2_option_set_peer_max_concurrent_streams(options, 100)
            unsafe nghttp2_option_set_max_reserved_remote_streams(options, 0)
        }
        return unsafe options
    }

    private func installCallbacks() {
        unsafe nghttp2_session_callbacks_set_send_callback(callbacks, sendFrame)
        unsafe nghttp2_session_callbacks_set_send_data_callback(callbacks, sendData)
        unsafe nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, frameReceived)
        unsafe nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, frameInvalid)
        unsafe nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, headersBegan)
        unsafe nghttp2_session_callbacks_set_on_header_callback(callbacks, fieldReceived)
        unsafe nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, fieldInvalid)
        unsafe nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, dataReceived)
        unsafe nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, streamClosed)
        unsafe nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, frameSent)
    }

    // MARK: Sessions

    /// The server's side of a connection, with its settings queued; nil when memory is short.
    package func makeServer() -> HTTP2Session? {
        var made: OpaquePointer?
        let user = unsafe Unmanaged.passUnretained(self).toOpaque()
        guard unsafe nghttp2_session_server_new2(&made, callbacks, user, serverOptions) == 0,
            let session = unsafe made
        else { return nil }
        let settings = [
            entry(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, UInt32(Self.streamsMax)),
            entry(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, UInt32(Self.streamWindow)),
            entry(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, UInt32(headBytes)),
            entry(NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1),
            entry(NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1),
        ]
        return unsafe start(session, settings)
    }

    /// The client's side of a connection to an upstream, with its settings queued.
    package func makeClient() -> HTTP2Session? {
        var made: OpaquePointer?
        let user = unsafe Unmanaged.passUnretained(self).toOpaque()
        guard unsafe nghttp2_session_client_new2(&made, callbacks, user, clientOptions) == 0,
            let session = unsafe made
        else { return nil }
        let settings = [
            entry(NGHTTP2_SETTINGS_ENABLE_PUSH, 0),
            entry(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0),
            entry(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, UInt32(Self.streamWindow)),
            entry(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, UInt32(Self.answerHeadBytes)),
        ]
        return unsafe start(session, settings)
    }

    private func entry(_ id: nghttp2_settings_id, _ value: UInt32) -> nghttp2_settings_entry {
        nghttp2_settings_entry(settings_id: Int32(id.rawValue), value: value)
    }

    private func start(
        _ session: OpaquePointer, _ settings: [nghttp2_settings_entry]
    ) -> HTTP2Session? {
        let none = UInt8(NGHTTP2_FLAG_NONE.rawValue)
        guard unsafe nghttp2_submit_settings(session, none, settings, settings.count) == 0,
            unsafe nghttp2_session_set_local_window_size(session, none, 0, Self.connectionWindow) == 0
        else {
            unsafe nghttp2_session_del(session)
            return nil
        }
        return unsafe HTTP2Session(session)
    }

    // MARK: Bytes

    /// Takes what has arrived. False when the connection cannot go on; what `send` collects then still goes
    /// out first.
    package func receive(_ session: HTTP2Session, _ bytes: Span<UInt8>) -> Bool {
        guard let raw = unsafe session.raw else { return false }
        isBlockOpen = false
        if !parts.isEmpty, let part = parts.removeValue(forKey: session.identity) {
            block.value.takeUp(part)
            isBlockOpen = true
        }
        let taken = unsafe bytes.withUnsafeBufferPointer { buffer in
            unsafe nghttp2_session_mem_recv(raw, buffer.baseAddress, buffer.count)
        }
        guard taken >= 0 else { return false }
        if isBlockOpen { parts[session.identity] = block.value.part() }
        return true
    }

    /// Frees a session and what the engine keeps of it.
    package func free(_ session: inout HTTP2Session) {
        if !parts.isEmpty, var part = parts.removeValue(forKey: session.identity) { part.free() }
        session.free()
    }

    /// Collects frames in `frames`, which is emptied first, until it is full or nothing more may be sent now.
    /// False when the connection cannot go on.
    package func send(_ session: HTTP2Session) -> Bool {
        guard let raw = unsafe session.raw else { return false }
        frames.value.clear()
        return unsafe nghttp2_session_send(raw) == 0
    }

    fileprivate func room(for count: Int) -> Bool { frames.value.freeCount >= count }
}

// MARK: Callbacks

private typealias RawSession = OpaquePointer?
private typealias RawFrame = UnsafePointer<nghttp2_frame>?
private typealias User = UnsafeMutableRawPointer?

private func engine(_ user: User) -> HTTP2Engine {
    guard let user = unsafe user else { preconditionFailure("every session names its engine") }
    return unsafe Unmanaged<HTTP2Engine>.fromOpaque(user).takeUnretainedValue()
}

private func handle(_ raw: RawSession) -> HTTP2Session {
    guard let raw = unsafe raw else { return HTTP2Session() }
    return unsafe HTTP2Session(raw)
}

@c
private func sendFrame(
    _ session: OpaquePointer?, _ bytes: UnsafePointer<UInt8>?, _ count: Int, _ flags: Int32,
    _ user: UnsafeMutableRawPointer?
) -> Int {
    let engine = unsafe engine(user)
    guard engine.room(for: count) else { return Int(NGHTTP2_ERR_WOULDBLOCK.rawValue) }
    unsafe engine.frames.value.append(Span(_unsafeStart: bytes.unsafelyUnwrapped, count: count))
    return count
}

@c
private func sendData(
    _ session: OpaquePointer?, _ frame: UnsafeMutablePointer<nghttp2_frame>?, _ head: UnsafePointer<UInt8>?,
    _ count: Int, _ source: UnsafeMutablePointer<nghttp2_data_source>?, _ user: UnsafeMutableRawPointer?
) -> Int32 {
    let engine = unsafe engine(user)
    guard engine.room(for: count + 9) else { return Int32(NGHTTP2_ERR_WOULDBLOCK.rawValue) }
    unsafe engine.frames.value.append(Span(_unsafeStart: head.unsafelyUnwrapped, count: 9))
    let stream = unsafe gw_frame_stream(frame)
    let tag = unsafe handle(session).tag(ofStream: stream)
    unsafe engine.owner?.http2TakeBody(tag: tag, count, into: &engine.frames.value)
    return 0
}

/// Says how much of a stream could be sent; the bytes themselves go straight into the frames.
@c
func readBody(
    _ session: OpaquePointer?, _ stream: Int32, _ target: UnsafeMutablePointer<UInt8>?, _ room: Int,
    _ flags: UnsafeMutablePointer<UInt32>?, _ source: UnsafeMutablePointer<nghttp2_data_source>?,
    _ user: UnsafeMutableRawPointer?
) -> Int {
    let engine = unsafe engine(user)
    let session = unsafe handle(session)
    let tag = session.tag(ofStream: stream)
    guard tag != 0, let state = unsafe engine.owner?.http2BodyAvailable(tag: tag) else {
        return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
    }
    let count = min(state.count, room)
    let ends = state.isEnd && count == state.count
    if count == 0, !ends { return Int(NGHTTP2_ERR_DEFERRED.rawValue) }
    var result = UInt32(NGHTTP2_DATA_FLAG_NO_COPY.rawValue)
    if ends {
        result |= UInt32(NGHTTP2_DATA_FLAG_EOF.rawValue)
        if state.hasTrailers {
            result |= UInt32(NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue)
            unsafe engine.owner?.http2SubmitTrailers(session, stream: stream, tag: tag)
        }
    }
    unsafe flags?.pointee = result
    return count
}

@c
private func headersBegan(
    _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ user: UnsafeMutableRawPointer?
) -> Int32 {
    let engine = unsafe engine(user)
    engine.block.value.begin()
    engine.isBlockOpen = true
    return 0
}

@c
private func fieldReceived(
    _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ name: UnsafePointer<UInt8>?,
    _ nameCount: Int, _ value: UnsafePointer<UInt8>?, _ valueCount: Int, _ flags: UInt8,
    _ user: UnsafeMutableRawPointer?
) -> Int32 {
    let engine = unsafe engine(user)
    unsafe engine.block.value.add(
        Span(_unsafeStart: name.unsafelyUnwrapped, count: nameCount),
        Span(_unsafeStart: value.unsafelyUnwrapped, count: valueCount))
    guard engine.block.value.isBomb else { return 0 }
    // Nobody means a block that unpacks to many times the limit: the connection has no further frame read.
    unsafe handle(session).terminate(.enhanceYourCalm)
    return Int32(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
}

@c
private func fieldInvalid(
    _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ name: UnsafePointer<UInt8>?,
    _ nameCount: Int, _ value: UnsafePointer<UInt8>?, _ valueCount: Int, _ flags: UInt8,
    _ user: UnsafeMutableRawPointer?
) -> Int32 {
    // Left alone, the library drops such a field and goes on; RFC 9113 section 8.1.1 wants the message gone.
    unsafe engine(user).block.value.reject()
    return 0
}

@c
private func frameReceived(
    _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ user: UnsafeMutableRawPointer?
) -> Int32 {
    let engine = unsafe engine(user)
    let owner = unsafe engine.owner
    let session = unsafe handle(session)
    let stream = unsafe gw_frame_stream(frame)
    let ends = unsafe gw_frame_flags(frame) & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
    switch unsafe UInt32(gw_frame_type(frame)) {
    case NGHTTP2_HEADERS.rawValue:
        let kind: HTTP2HeadKind
        switch unsafe UInt32(gw_frame_category(frame)) {
        case NGHTTP2_HCAT_REQUEST.rawValue: kind = .request
        case NGHTTP2_HCAT_RESPONSE.rawValue: kind = .response
        default: kind = .interimOrTrailers
        }
        engine.isBlockOpen = false
        owner?.http2Head(session, stream: stream, kind, endsStream: ends)
    case NGHTTP2_DATA.rawValue:
        if ends { owner?.http2DataEnded(session, stream: stream) }
    case NGHTTP2_GOAWAY.rawValue:
        owner?.http2GoAway(session, lastStream: unsafe gw_goaway_last_stream(frame))
    default: break
    }
    return 0
}

@c
private func frameInvalid(
    _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ error: Int32,
    _ user: UnsafeMutableRawPointer?
) -> Int32 {
    // The library has dealt with it, and says nothing of what is left of its fields.
    if unsafe UInt32(gw_frame_type(frame)) == NGHTTP2_HEADERS.rawValue {
        unsafe engine(user).isBlockOpen = false
    }
    return 0
}

@c
private func dataReceived(
    _ session: OpaquePointer?, _ flags: UInt8, _ stream: Int32, _ bytes: UnsafePointer<UInt8>?, _ count: Int,
    _ user: UnsafeMutableRawPointer?
) -> Int32 {
    let bytes = unsafe Span(_unsafeStart: bytes.unsafelyUnwrapped, count: count)
    unsafe engine(user).owner?.http2Data(handle(session), stream: stream, bytes)
    return 0
}

@c
private func streamClosed(
    _ session: OpaquePointer?, _ stream: Int32, _ code: UInt32, _ user: UnsafeMutableRawPointer?
) -> Int32 {
    let session = unsafe handle(session)
    let tag = session.tag(ofStream: stream)
    unsafe engine(user).owner?.http2Closed(session, stream: stream, tag: tag, code: code)
    return 0
}

@c
private func frameSent(
    _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ user: UnsafeMutableRawPointer?
) -> Int32 {
    let type = unsafe UInt32(gw_frame_type(frame))
    guard type == NGHTTP2_DATA.rawValue || type == NGHTTP2_HEADERS.rawValue,
        unsafe gw_frame_flags(frame) & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
    else { return 0 }
    let session = unsafe handle(session)
    let stream = unsafe gw_frame_stream(frame)
    let tag = session.tag(ofStream: stream)
    unsafe engine(user).owner?.http2SideEnded(session, stream: stream, tag: tag)
    return 0
}
