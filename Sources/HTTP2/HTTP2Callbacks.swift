internal import CNghttp2
import Reactor

// What the library calls while it reads and writes frames: each call finds its owner and hands on.

/// What the callbacks reach, all of it constant: reading a variable of a class would count references, which
/// for some twenty callbacks a stream is what a worker would notice.
final class CallbackContext {
    let block: Mutable<HeaderBlock>
    let frames: Mutable<Block>
    let flood: Mutable<Bool>
    let owner: any HTTP2Owner

    init(
        block: Mutable<HeaderBlock>, frames: Mutable<Block>, flood: Mutable<Bool>, owner: any HTTP2Owner
    ) {
        self.block = block
        self.frames = frames
        self.flood = flood
        self.owner = owner
    }
}

@inline(__always)
private func with<Result>(
    _ user: UnsafeMutableRawPointer?, _ body: (CallbackContext) -> Result
) -> Result {
    guard let user = unsafe user else { preconditionFailure("every session names its context") }
    return unsafe Unmanaged<CallbackContext>.fromOpaque(user)._withUnsafeGuaranteedRef(body)
}

private func handle(_ raw: OpaquePointer?) -> HTTP2Session {
    guard let raw = unsafe raw else { return HTTP2Session() }
    return unsafe HTTP2Session(raw)
}

/// What the stream of a body belongs to.
private func tag(of source: UnsafeMutablePointer<nghttp2_data_source>?) -> UInt64 {
    UInt64(UInt(bitPattern: unsafe source?.pointee.ptr))
}

@c
func sendFrame(
    _ session: OpaquePointer?, _ bytes: UnsafePointer<UInt8>?, _ count: Int, _ flags: Int32,
    _ user: UnsafeMutableRawPointer?
) -> Int {
    unsafe with(user) { context in
        guard context.frames.value.freeCount >= count else { return Int(NGHTTP2_ERR_WOULDBLOCK.rawValue) }
        unsafe context.frames.value.append(Span(_unsafeStart: bytes.unsafelyUnwrapped, count: count))
        return count
    }
}

@c
func sendData(
    _ session: OpaquePointer?, _ frame: UnsafeMutablePointer<nghttp2_frame>?, _ head: UnsafePointer<UInt8>?,
    _ count: Int, _ source: UnsafeMutablePointer<nghttp2_data_source>?, _ user: UnsafeMutableRawPointer?
) -> Int32 {
    unsafe with(user) { context in
        guard context.frames.value.freeCount >= count + 9 else {
            return Int32(NGHTTP2_ERR_WOULDBLOCK.rawValue)
        }
        unsafe context.frames.value.append(Span(_unsafeStart: head.unsafelyUnwrapped, count: 9))
        let tag = unsafe tag(of: source)
        // A frame that waited for room may outlive its stream, which has been reset meanwhile.
        guard context.owner.http2TakeBody(tag: tag, count, into: &context.frames.value) else {
            context.frames.value.truncate(to: context.frames.value.count - 9)
            return Int32(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
        }
        if unsafe gw_frame_flags(frame) & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0 {
            unsafe context.owner.http2SideEnded(
                handle(session), stream: gw_frame_stream(frame), tag: tag)
        }
        return 0
    }
}

/// Says how much of a stream could be sent; the bytes themselves go straight into the frames.
@c
func readBody(
    _ session: OpaquePointer?, _ stream: Int32, _ target: UnsafeMutablePointer<UInt8>?, _ room: Int,
    _ flags: UnsafeMutablePointer<UInt32>?, _ source: UnsafeMutablePointer<nghttp2_data_source>?,
    _ user: UnsafeMutableRawPointer?
) -> Int {
    unsafe with(user) { context in
        let tag = unsafe tag(of: source)
        let state = context.owner.http2BodyAvailable(tag: tag)
        let count = min(state.count, room)
        let ends = state.isEnd && count == state.count
        if count == 0, !ends { return Int(NGHTTP2_ERR_DEFERRED.rawValue) }
        var result = UInt32(NGHTTP2_DATA_FLAG_NO_COPY.rawValue)
        if ends {
            result |= UInt32(NGHTTP2_DATA_FLAG_EOF.rawValue)
            if state.hasTrailers {
                result |= UInt32(NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue)
                unsafe context.owner.http2SubmitTrailers(handle(session), stream: stream, tag: tag)
            }
        }
        unsafe flags?.pointee = result
        return count
    }
}

@c
func headersBegan(
    _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ user: UnsafeMutableRawPointer?
) -> Int32 {
    unsafe with(user) { context in
        context.block.value.begin()
        return 0
    }
}

@c
func fieldReceived(
    _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ name: UnsafePointer<UInt8>?,
    _ nameCount: Int, _ value: UnsafePointer<UInt8>?, _ valueCount: Int, _ flags: UInt8,
    _ user: UnsafeMutableRawPointer?
) -> Int32 {
    unsafe with(user) { context in
        unsafe context.block.value.add(
            Span(_unsafeStart: name.unsafelyUnwrapped, count: nameCount),
            Span(_unsafeStart: value.unsafelyUnwrapped, count: valueCount))
        guard context.block.value.isBomb else { return 0 }
        // Nobody means a block that unpacks to many times the limit: the connection has no further frame
        // read.
        context.flood.value = true
        unsafe handle(session).terminate(.enhanceYourCalm)
        return Int32(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
    }
}

@c
func fieldInvalid(
    _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ name: UnsafePointer<UInt8>?,
    _ nameCount: Int, _ value: UnsafePointer<UInt8>?, _ valueCount: Int, _ flags: UInt8,
    _ user: UnsafeMutableRawPointer?
) -> Int32 {
    // Left alone, the library drops such a field and goes on; RFC 9113 section 8.1.1 wants the message gone.
    unsafe with(user) { context in context.block.value.reject() }
    return 0
}

@c
func frameReceived(
    _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ user: UnsafeMutableRawPointer?
) -> Int32 {
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
        unsafe with(user) { context in
            context.block.value.isOpen = false
            context.owner.http2Head(session, stream: stream, kind, endsStream: ends)
        }
    case NGHTTP2_DATA.rawValue:
        if ends { unsafe with(user) { $0.owner.http2DataEnded(session, stream: stream) } }
    case NGHTTP2_SETTINGS.rawValue:
        // The same flag as END_STREAM's is that of an acknowledgement.
        if !ends { unsafe with(user) { $0.owner.http2Settings(session) } }
    case NGHTTP2_GOAWAY.rawValue:
        let last = unsafe gw_goaway_last_stream(frame)
        unsafe with(user) { $0.owner.http2GoAway(session, lastStream: last) }
    default: break
    }
    return 0
}

@c
func frameInvalid(
    _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ error: Int32,
    _ user: UnsafeMutableRawPointer?
) -> Int32 {
    // The library has dealt with it, and says nothing of what is left of its fields.
    if unsafe UInt32(gw_frame_type(frame)) == NGHTTP2_HEADERS.rawValue {
        unsafe with(user) { context in context.block.value.isOpen = false }
    }
    return 0
}

@c
func dataReceived(
    _ session: OpaquePointer?, _ flags: UInt8, _ stream: Int32, _ bytes: UnsafePointer<UInt8>?, _ count: Int,
    _ user: UnsafeMutableRawPointer?
) -> Int32 {
    unsafe with(user) { context in
        let bytes = unsafe Span(_unsafeStart: bytes.unsafelyUnwrapped, count: count)
        unsafe context.owner.http2Data(handle(session), stream: stream, bytes)
        return 0
    }
}

@c
func streamClosed(
    _ session: OpaquePointer?, _ stream: Int32, _ code: UInt32, _ user: UnsafeMutableRawPointer?
) -> Int32 {
    unsafe with(user) { context in
        let session = unsafe handle(session)
        let tag = session.tag(ofStream: stream)
        context.owner.http2Closed(session, stream: stream, tag: tag, code: code)
        return 0
    }
}

/// A request that was queued when the peer said GOAWAY, which it has not seen.
@c
func frameNotSent(
    _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ error: Int32,
    _ user: UnsafeMutableRawPointer?
) -> Int32 {
    guard unsafe UInt32(gw_frame_type(frame)) == NGHTTP2_HEADERS.rawValue,
        unsafe UInt32(gw_frame_category(frame)) == NGHTTP2_HCAT_REQUEST.rawValue
    else { return 0 }
    unsafe with(user) { context in
        let session = unsafe handle(session)
        let stream = unsafe gw_frame_stream(frame)
        let tag = session.tag(ofStream: stream)
        context.owner.http2Closed(session, stream: stream, tag: tag, code: HTTP2Error.refusedStream.rawValue)
    }
    return 0
}

@c
func frameSent(
    _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ user: UnsafeMutableRawPointer?
) -> Int32 {
    // The end of a body has been told with its last bytes.
    guard unsafe UInt32(gw_frame_type(frame)) == NGHTTP2_HEADERS.rawValue,
        unsafe gw_frame_flags(frame) & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
    else { return 0 }
    return unsafe with(user) { context in
        let session = unsafe handle(session)
        let stream = unsafe gw_frame_stream(frame)
        let tag = session.tag(ofStream: stream)
        context.owner.http2SideEnded(session, stream: stream, tag: tag)
        return 0
    }
}
