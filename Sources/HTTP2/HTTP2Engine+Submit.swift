internal import CNghttp2
package import HTTPWire
package import Reactor

// Heads that stand as HTTP/1.1 text, sent as HTTP/2: names in lower case, what belongs to an HTTP/1.1
// connection left out.

extension HTTP2Engine {
    /// Queues the head of a response.
    ///
    /// - Parameters:
    ///   - tag: what the stream belongs to.
    ///   - text: where `parsed` was parsed.
    ///   - status: as sent; differs from the text's for a tunnel, whose 101 is a 200 (RFC 8441 section 5).
    ///   - hasBody: whether `http2BodyAvailable` will be asked; without, the head ends the stream.
    package func submitResponse(
        _ session: HTTP2Session, stream: Int32, tag: UInt64, _ text: Block,
        _ parsed: Mutable<ResponseHead>, status: Int, hasBody: Bool
    ) {
        beginFields()
        var writer = ByteWriter(names.value)
        writer.append(decimal: Int64(status))
        names.value.commit(writer)
        var count = 1
        unsafe fields[0] = field(":status", valueAt: 0, 3)
        // In place, one by one: a head is five kilobytes, and must not be copied to look at a field.
        for index in 0..<parsed.value.fieldCount {
            let slice = parsed.value.fields[index]
            if slice.id.isHopByHop { continue }
            // A tunnel has no length, and the proof of the upgrade was for HTTP/1.1.
            if status != parsed.value.status,
                slice.id == .contentLength || Self.isWebSocketAccept(text, slice)
            {
                continue
            }
            // A gRPC answer without messages is its trailers alone, of which a length is no part.
            if parsed.value.isGRPC, slice.id == .contentLength { continue }
            append(text, slice, &count)
        }
        let isInterim = status < 200
        let none = UInt8(NGHTTP2_FLAG_NONE.rawValue)
        if isInterim {
            unsafe nghttp2_submit_headers(session.raw, none, stream, nil, fields, count, nil)
        } else if hasBody {
            _ = unsafe withProvider(tag) { provider in
                unsafe nghttp2_submit_response(session.raw, stream, fields, count, provider)
            }
        } else {
            unsafe nghttp2_submit_response(session.raw, stream, fields, count, nil)
        }
    }

    // MARK: A response, field by field

    /// Begins the head of a final response; `add` its fields, then `submitResponse`. What fields stand in
    /// must stay in place until then.
    ///
    /// - Parameters:
    ///   - status: 200 to 599.
    ///   - teachesNames: whether fleeting fields are put into the peer's table, from which later ones take
    ///     their names (RFC 7541 section 6.2.3). Their values only take room there.
    package func beginResponse(status: Int, teachesNames: Bool) {
        beginFields()
        self.teachesNames.value = teachesNames
        var writer = ByteWriter(names.value)
        writer.append(decimal: Int64(status))
        names.value.commit(writer)
        unsafe fields[0] = field(":status", valueAt: 0, 3)
        fieldCount.value = 1
    }

    /// Adds a field that has been parsed; its name comes in lower case.
    package func add(_ text: Block, _ slice: FieldSlice) {
        if let name = slice.id.lowercaseName {
            add(name, text, slice.value)
        } else {
            append(text, slice, &fieldCount.value)
        }
    }

    /// - Parameters:
    ///   - name: in lower case.
    ///   - isFleeting: whether the value never comes again.
    package func add(_ name: StaticString, _ text: Block, _ value: Range<Int>, isFleeting: Bool = false) {
        guard fieldCount.value < Self.fieldsMax else { return }
        var added = unsafe field(name, text, value)
        // The library need not copy what never goes away.
        unsafe added.flags = UInt8(NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue)
        if isFleeting, !teachesNames.value {
            unsafe added.flags |= UInt8(NGHTTP2_NV_FLAG_NO_INDEX.rawValue)
        }
        unsafe fields[fieldCount.value] = added
        fieldCount.value += 1
    }

    package func add(_ name: StaticString, decimal value: Int64) {
        let start = names.value.count
        var writer = ByteWriter(names.value)
        writer.append(decimal: value)
        names.value.commit(writer)
        add(name, names.value, start..<names.value.count)
    }

    package func add(_ name: StaticString, _ value: StaticString) {
        guard fieldCount.value < Self.fieldsMax else { return }
        var added = unsafe constantField(name, value)
        unsafe added.flags = UInt8(
            NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue | NGHTTP2_NV_FLAG_NO_COPY_VALUE.rawValue)
        unsafe fields[fieldCount.value] = added
        fieldCount.value += 1
    }

    /// Adds lines that this process has written, each with its CRLF.
    package func add(lines text: Block) {
        var offset = 0
        while let slice = FieldLines.next(written: text.readable, &offset) {
            append(text, slice, &fieldCount.value)
        }
    }

    /// Queues the response whose fields have been added.
    ///
    /// - Parameters:
    ///   - tag: what the stream belongs to.
    ///   - hasBody: whether `http2BodyAvailable` will be asked; without, the head ends the stream.
    /// - Returns: bytes of its names and values.
    package func submitResponse(
        _ session: HTTP2Session, stream: Int32, tag: UInt64, hasBody: Bool
    ) -> Int {
        let count = fieldCount.value
        if hasBody {
            _ = unsafe withProvider(tag) { provider in
                unsafe nghttp2_submit_response(session.raw, stream, fields, count, provider)
            }
        } else {
            unsafe nghttp2_submit_response(session.raw, stream, fields, count, nil)
        }
        var bytes = 0
        for index in 0..<count { unsafe bytes += fields[index].namelen + fields[index].valuelen }
        return bytes
    }

    /// Queues the head of a request.
    ///
    /// - Parameters:
    ///   - protocolName: where it is not empty, the request is one for a tunnel of this protocol.
    ///   - tag: what the stream belongs to.
    /// - Returns: the new stream's number, or nil when the peer takes no more.
    package func submitRequest(
        _ session: HTTP2Session, _ text: Block, _ parsed: Mutable<RequestHead>, scheme: StaticString,
        protocolName: Range<Int>, tag: UInt64, hasBody: Bool
    ) -> Int32? {
        beginFields()
        let isTunnel = !protocolName.isEmpty
        unsafe fields[0] =
            isTunnel ? constantField(":method", "CONNECT") : field(":method", text, parsed.value.methodRange)
        unsafe fields[1] = constantField(":scheme", scheme)
        unsafe fields[2] = field(":authority", text, parsed.value.host)
        unsafe fields[3] = field(":path", text, parsed.value.target)
        var count = 4
        if isTunnel {
            unsafe fields[4] = field(":protocol", text, protocolName)
            count = 5
        }
        for index in 0..<parsed.value.fieldCount {
            let slice = parsed.value.fields[index]
            if slice.id == .host { continue }
            if isTunnel, Self.isWebSocketKey(text, slice) { continue }
            if slice.id.isHopByHop {
                // Behind TE is only ever "trailers", which HTTP/2 allows.
                guard slice.id == .te else { continue }
            }
            append(text, slice, &count)
        }
        let user = unsafe UnsafeMutableRawPointer(bitPattern: UInt(tag))
        let stream: Int32
        if hasBody {
            stream = unsafe withProvider(tag) { provider in
                unsafe nghttp2_submit_request(session.raw, nil, fields, count, provider, user)
            }
        } else {
            stream = unsafe nghttp2_submit_request(session.raw, nil, fields, count, nil, user)
        }
        return stream > 0 ? stream : nil
    }

    /// Queues trailer fields, which end the stream.
    ///
    /// - Parameter text: field lines, each with its CRLF.
    package func submitTrailers(_ session: HTTP2Session, stream: Int32, _ text: Block) {
        beginFields()
        var count = 0
        var offset = 0
        while let slice = FieldLines.next(text.readable, &offset) { append(text, slice, &count) }
        unsafe nghttp2_submit_trailer(session.raw, stream, fields, count)
    }

    // MARK: Fields

    private func beginFields() { names.value.clear() }

    private func append(_ text: Block, _ slice: FieldSlice, _ count: inout Int) {
        guard count < Self.fieldsMax, names.value.freeCount >= slice.name.count else { return }
        let start = names.value.count
        let name = text.span(slice.name)
        names.value.append(lowercasing: name)
        var flags = UInt8(NGHTTP2_NV_FLAG_NONE.rawValue)
        // Values that never come again only push others out of the table.
        if slice.id == .xRequestID || slice.id == .traceparent || slice.id == .authorization
            || name.count == 9 && name.equalsIgnoringCase("ratelimit")
        {
            flags = UInt8(NGHTTP2_NV_FLAG_NO_INDEX.rawValue)
        }
        unsafe fields[count] = nghttp2_nv(
            name: names.value.readableAddress.map { unsafe $0 + start },
            value: text.readableAddress.map { unsafe $0 + slice.value.lowerBound },
            namelen: slice.name.count, valuelen: slice.value.count, flags: flags)
        count += 1
    }

    private func field(_ name: StaticString, _ text: Block, _ value: Range<Int>) -> nghttp2_nv {
        unsafe nghttp2_nv(
            name: UnsafeMutablePointer(mutating: name.utf8Start),
            value: text.readableAddress.map { unsafe $0 + value.lowerBound },
            namelen: name.utf8CodeUnitCount, valuelen: value.count,
            flags: UInt8(NGHTTP2_NV_FLAG_NONE.rawValue))
    }

    private func field(_ name: StaticString, valueAt start: Int, _ count: Int) -> nghttp2_nv {
        unsafe field(name, names.value, start..<start + count)
    }

    private func constantField(_ name: StaticString, _ value: StaticString) -> nghttp2_nv {
        unsafe nghttp2_nv(
            name: UnsafeMutablePointer(mutating: name.utf8Start),
            value: UnsafeMutablePointer(mutating: value.utf8Start), namelen: name.utf8CodeUnitCount,
            valuelen: value.utf8CodeUnitCount, flags: UInt8(NGHTTP2_NV_FLAG_NONE.rawValue))
    }

    /// Whether a field is `Sec-WebSocket-Key`, which belongs to HTTP/1.1 (RFC 8441 section 5).
    package static func isWebSocketKey(_ text: Block, _ slice: FieldSlice) -> Bool {
        slice.name.count == 17 && text.span(slice.name).equalsIgnoringCase("sec-websocket-key")
    }

    /// Whether a field is `Sec-WebSocket-Accept`, which answers that key.
    package static func isWebSocketAccept(_ text: Block, _ slice: FieldSlice) -> Bool {
        slice.name.count == 20 && text.span(slice.name).equalsIgnoringCase("sec-websocket-accept")
    }

    private func withProvider<Result>(
        _ tag: UInt64, _ body: (UnsafePointer<nghttp2_data_provider>) -> Result
    ) -> Result {
        let tag = unsafe UnsafeMutableRawPointer(bitPattern: UInt(tag))
        var provider = unsafe nghttp2_data_provider(
            source: nghttp2_data_source(ptr: tag), read_callback: readBody)
        return unsafe withUnsafePointer(to: &provider) { unsafe body($0) }
    }
}
