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
    /// The peer has said what it can.
    func http2Settings(_ session: HTTP2Session)
    func http2Data(_ session: HTTP2Session, stream: Int32, _ bytes: Span<UInt8>)
    /// The peer has ended its side of a stream with a DATA frame.
    func http2DataEnded(_ session: HTTP2Session, stream: Int32)
    /// The peer takes no further streams than `lastStream`.
    func http2GoAway(_ session: HTTP2Session, lastStream: Int32)
    /// A stream is over for nghttp2. `code` is 0 after a regular end.
    func http2Closed(_ session: HTTP2Session, stream: Int32, tag: UInt64, code: UInt32)
    /// How much of a stream's body could be sent now.
    func http2BodyAvailable(tag: UInt64) -> HTTP2BodyState
    /// Moves bytes that `http2BodyAvailable` has promised. False when the stream is gone, and they with it.
    func http2TakeBody(tag: UInt64, _ count: Int, into frames: inout Block) -> Bool
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
    /// CONTINUATION frames of one header block (CVE-2024-28182), whose bytes are bounded too: enough for the
    /// largest head in frames of 512 bytes.
    private static let continuationsMax = 64
    /// Bytes of a header block that we send, by the library's estimate of twelve more for each field: the
    /// longest head of the other side must fit.
    private static let sentHeadBytes = 131_072
    /// Streams that a peer may reset at once, and a second after that, before the library ends the
    /// connection: a second line behind the owner's own count.
    private static let resetBurst: UInt64 = 10_000
    private static let resetsPerSecond: UInt64 = 5_000

    /// The header block that is being received.
    package let block: Mutable<HeaderBlock>
    /// Whether what `receive` took last was more than anybody means: a block that unpacks to many times its
    /// limit, or more frames than the library answers.
    package var hasMetFlood: Bool { flood.value }
    private let flood = Mutable(false)
    /// Blocks whose rest has not come yet, by session: the bytes of others must not run into them.
    private var parts: [UInt: HeaderBlock.Part] = [:]
    /// What `send` has collected.
    package let frames: Mutable<Block>
    /// Lowercase names of the fields being submitted.
    let names: Mutable<Block>
    let fields: UnsafeMutablePointer<nghttp2_nv>
    /// Fields of the response being put together.
    let fieldCount = Mutable(0)
    /// Whether the response under way puts the names of fleeting fields into the peer's table.
    let teachesNames = Mutable(false)
    static let fieldsMax = 272
    private let callbacks: OpaquePointer
    private let serverOptions: OpaquePointer
    private let clientOptions: OpaquePointer
    private let memory = FrameMemory()
    private let headBytes: Int
    /// What the callbacks of every session get.
    private var callbackContext: CallbackContext?

    /// - Parameter limits: on heads, as for HTTP/1.
    /// - Throws: nothing but running out of memory, which ends the process.
    package init(limits: HeadLimits) {
        // Answers may be longer than requests; the parser behind this has the last word on both.
        block = Mutable(HeaderBlock(bytesMax: max(limits.headBytes, Self.answerHeadBytes), fieldsMax: 256))
        frames = Mutable(.allocate(capacity: Self.framesBytes))
        // The names of the longest head, and the numbers of the gateway's own fields.
        names = Mutable(.allocate(capacity: Self.answerHeadBytes + 1_024))
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
        block.value.free()
        block.deallocate()
        frames.value.deallocate()
        frames.deallocate()
        names.value.deallocate()
        names.deallocate()
        flood.deallocate()
        fieldCount.deallocate()
        teachesNames.deallocate()
    }

    /// Names the owner; before the first session. The engine keeps it from then on.
    package func attach(_ owner: any HTTP2Owner) {
        callbackContext = CallbackContext(block: block, frames: frames, flood: flood, owner: owner)
    }

    private var user: UnsafeMutableRawPointer? {
        unsafe callbackContext.map { unsafe Unmanaged.passUnretained($0).toOpaque() }
    }

    private static func makeOptions(isServer: Bool) -> OpaquePointer {
        var made: OpaquePointer?
        unsafe nghttp2_option_new(&made)
        guard let options = unsafe made else { preconditionFailure("out of memory") }
        unsafe nghttp2_option_set_no_auto_window_update(options, 1)
        unsafe nghttp2_option_set_no_closed_streams(options, 1)
        unsafe nghttp2_option_set_max_outbound_ack(options, acknowledgementsMax)
        unsafe nghttp2_option_set_max_continuations(options, continuationsMax)
        unsafe nghttp2_option_set_max_send_header_block_length(options, sentHeadBytes)
        if isServer {
            // What a request must be is held against `HeaderBlock` and counted by the stream's owner, both of
            // which have to look at every field and byte anyway. Answers of upstreams are checked twice.
            unsafe nghttp2_option_set_no_http_messaging(options, 1)
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
        unsafe nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, frameNotSent)
    }

    // MARK: Sessions

    /// The server's side of a connection, with its settings queued; nil when memory is short.
    package func makeServer() -> HTTP2Session? {
        var made: OpaquePointer?
        let functions = unsafe memory.functions
        guard unsafe nghttp2_session_server_new3(&made, callbacks, user, serverOptions, functions) == 0,
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
        let functions = unsafe memory.functions
        guard unsafe nghttp2_session_client_new3(&made, callbacks, user, clientOptions, functions) == 0,
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
        block.value.isOpen = false
        flood.value = false
        if !parts.isEmpty, let part = parts.removeValue(forKey: session.identity) {
            block.value.takeUp(part)
        }
        let taken = unsafe bytes.withUnsafeBufferPointer { buffer in
            unsafe nghttp2_session_mem_recv(raw, buffer.baseAddress, buffer.count)
        }
        guard taken >= 0 else {
            let error = Int32(truncatingIfNeeded: taken)
            if error == NGHTTP2_ERR_FLOODED.rawValue || error == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS.rawValue {
                flood.value = true
            }
            return false
        }
        if block.value.isOpen { parts[session.identity] = block.value.part() }
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
}
