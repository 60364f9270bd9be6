internal import CNghttp2

/// One connection's HTTP/2 state: a plain handle, freed once by the slot that holds it.
@safe
package struct HTTP2Session {
    let raw: OpaquePointer?

    /// A connection that does not speak HTTP/2.
    package init() { unsafe raw = nil }

    init(_ raw: OpaquePointer) { unsafe self.raw = raw }

    package var isOpen: Bool { unsafe raw != nil }

    /// What tells sessions apart as long as they live.
    var identity: UInt { unsafe UInt(bitPattern: raw) }

    /// Through its engine, which may keep something of it.
    mutating func free() {
        unsafe nghttp2_session_del(raw)
        self = HTTP2Session()
    }

    /// Whether both sides are done: nothing more is read, nothing waits to be sent.
    package var isFinished: Bool {
        guard let raw = unsafe raw else { return true }
        return unsafe nghttp2_session_want_read(raw) == 0 && nghttp2_session_want_write(raw) == 0
    }

    /// Whether frames wait to be sent that could be sent now.
    package var wantsWrite: Bool {
        guard let raw = unsafe raw else { return false }
        return unsafe nghttp2_session_want_write(raw) != 0
    }

    /// What a stream belongs to: any number but 0.
    package func setTag(_ tag: UInt64, ofStream stream: Int32) {
        unsafe nghttp2_session_set_stream_user_data(
            raw, stream, UnsafeMutableRawPointer(bitPattern: UInt(tag)))
    }

    /// 0 for streams without a tag, and for those that are gone.
    package func tag(ofStream stream: Int32) -> UInt64 {
        guard let found = unsafe nghttp2_session_get_stream_user_data(raw, stream) else { return 0 }
        return UInt64(UInt(bitPattern: found))
    }

    // MARK: Flow control (RFC 9113 section 5.2)

    /// Body bytes have arrived and do not hold up other streams: the connection's window opens again.
    package func consumeConnection(_ count: Int) {
        unsafe nghttp2_session_consume_connection(raw, count)
    }

    /// Body bytes have been passed on: the stream's window opens again.
    package func consumeStream(_ stream: Int32, _ count: Int) {
        unsafe nghttp2_session_consume_stream(raw, stream, count)
    }

    /// Bytes of a stream have become available to send.
    package func resume(_ stream: Int32) {
        unsafe nghttp2_session_resume_data(raw, stream)
    }

    /// Asks for a sign of life.
    package func ping() { unsafe nghttp2_submit_ping(raw, UInt8(NGHTTP2_FLAG_NONE.rawValue), nil) }

    // MARK: Ends

    package func reset(_ stream: Int32, _ code: HTTP2Error) {
        unsafe nghttp2_submit_rst_stream(raw, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream, code.rawValue)
    }

    /// Announces that no further streams will be taken, while those under way, also on the wire, still are
    /// (RFC 9113 section 6.8).
    package func announceShutdown() {
        if let raw = unsafe raw { unsafe nghttp2_submit_shutdown_notice(raw) }
    }

    /// No further streams; those taken so far go on.
    package func refuseFurtherStreams() {
        guard let raw = unsafe raw else { return }
        let last = unsafe nghttp2_session_get_last_proc_stream_id(raw)
        unsafe nghttp2_submit_goaway(
            raw, UInt8(NGHTTP2_FLAG_NONE.rawValue), last, HTTP2Error.none.rawValue, nil, 0)
    }

    /// Ends everything: GOAWAY, then nothing more is read.
    package func terminate(_ code: HTTP2Error) {
        if let raw = unsafe raw { unsafe nghttp2_session_terminate_session(raw, code.rawValue) }
    }

    /// Streams that the peer allows us to have open at once.
    package var remoteStreamsMax: Int {
        unsafe Int(nghttp2_session_get_remote_settings(raw, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS))
    }

    /// Whether the peer takes extended CONNECT (RFC 8441 section 3); false before its first SETTINGS.
    package var allowsTunnels: Bool {
        unsafe nghttp2_session_get_remote_settings(raw, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1
    }

    /// Whether the peer takes further requests.
    package var allowsRequests: Bool { unsafe nghttp2_session_check_request_allowed(raw) != 0 }

    /// Whether the peer has broken the protocol so that the connection ends, as long as it has not said
    /// GOAWAY itself: no further requests, though there are numbers left for them.
    package var hasGivenUp: Bool {
        unsafe nghttp2_session_check_request_allowed(raw) == 0
            && nghttp2_session_get_next_stream_id(raw) <= UInt32(Int32.max)
    }
}

/// Error codes of RFC 9113 section 7 that we send.
package enum HTTP2Error: UInt32, Sendable {
    case none = 0
    case protocolError = 1
    case internalError = 2
    case streamClosed = 5
    case refusedStream = 7
    case cancel = 8
    case enhanceYourCalm = 11
}
