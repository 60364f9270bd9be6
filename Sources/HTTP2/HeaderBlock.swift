import HTTPWire
package import Reactor

// A header block of HTTP/2, written down as HTTP/1.1 while its fields arrive. Behind this file nothing knows
// HTTP/2 fields: the text goes through the same strict parser as every other request, so what that parser
// promises of a head holds for both protocols. What could make a line, a name or a length of its own is
// refused here already (RFC 9113 sections 8.2 and 8.3).

package struct HeaderBlock: ~Copyable {
    package enum Problem: UInt8 {
        case none
        /// Not a message at all: the stream is reset (RFC 9113 section 8.1.1).
        case malformed
        /// Over the limits on bytes or fields: answered, then dropped.
        case tooLarge
    }

    /// What is kept by name, pseudo-header fields first.
    private enum Pseudo: Int { case method, scheme, authority, path, protocolName, status, host }

    /// What is known of a block besides its text.
    package struct Facts {
        fileprivate var ranges = InlineArray<7, Range<Int>>(repeating: 0..<0)
        fileprivate var isPresent = InlineArray<7, Bool>(repeating: false)
        fileprivate var fieldCount = 0
        fileprivate var decodedBytes = 0
        package fileprivate(set) var problem = Problem.none
        /// What `content-length` says, -1 when there is none.
        package fileprivate(set) var contentLength: Int64 = -1
        /// Whether `content-type` says that this is a call of gRPC.
        package fileprivate(set) var isGRPC = false
    }

    @usableFromInline var values: Block
    @usableFromInline var fields: Block
    @usableFromInline var cookies: Block
    /// An entry of a `FieldTable` for each line in `fields`.
    @usableFromInline var entries: Block
    /// Read where it stands: a call from another module would be given a copy of the whole block.
    package private(set) var facts = Facts()
    /// Whether further fields may come.
    var isOpen = false
    private let bytesMax: Int
    private let fieldsMax: Int
    private var problem: Problem { facts.problem }
    private var hasContentLength: Bool { facts.contentLength >= 0 }

    /// - Parameters:
    ///   - bytesMax: of a whole list, counted as names and values; 1 to 131,072.
    ///   - fieldsMax: regular fields, cookie crumbs counted once each.
    package init(bytesMax: Int, fieldsMax: Int) {
        self.bytesMax = bytesMax
        self.fieldsMax = fieldsMax
        values = .allocate(capacity: bytesMax)
        // A line needs four bytes more than its field.
        fields = .allocate(capacity: bytesMax + 4 * fieldsMax)
        cookies = .allocate(capacity: bytesMax + 2 * fieldsMax)
        entries = .allocate(capacity: FieldTable.byteCount(entries: fieldsMax))
    }

    /// Whether the block has unpacked to so much that nobody means it: four times the limit.
    var isBomb: Bool { facts.decodedBytes > 4 * bytesMax }

    /// The most that `writeRequest` and `writeResponse` write.
    @inlinable package var textBytesMax: Int {
        entries.count + values.count + fields.count + cookies.count + 320
    }

    /// Gives its memory back; nothing else may follow.
    mutating func free() {
        values.deallocate()
        fields.deallocate()
        cookies.deallocate()
        entries.deallocate()
    }

    package mutating func begin() {
        values.clear()
        fields.clear()
        cookies.clear()
        entries.clear()
        facts = Facts()
        isOpen = true
    }

    // MARK: Blocks that come in parts

    /// A block whose rest has not come yet, in memory of its own.
    struct Part {
        fileprivate var text: Block
        fileprivate var counts: (values: Int, fields: Int, cookies: Int)
        fileprivate var facts: Facts

        mutating func free() { text.deallocate() }
    }

    /// What has come so far, to be taken up later: meanwhile this serves another connection.
    func part() -> Part {
        let count = values.count + fields.count + cookies.count + entries.count
        var text = Block.allocate(capacity: max(1, count))
        text.append(values.readable)
        text.append(fields.readable)
        text.append(cookies.readable)
        text.append(entries.readable)
        return Part(text: text, counts: (values.count, fields.count, cookies.count), facts: facts)
    }

    /// Goes on with what had come of a block, whose memory this frees.
    mutating func takeUp(_ part: consuming Part) {
        begin()
        let (first, second) = (part.counts.values, part.counts.values + part.counts.fields)
        let third = second + part.counts.cookies
        values.append(part.text.span(0..<first))
        fields.append(part.text.span(first..<second))
        cookies.append(part.text.span(second..<third))
        entries.append(part.text.span(third..<part.text.count))
        facts = part.facts
        part.free()
    }

    // MARK: Fields

    /// What the library found wrong with a field.
    package mutating func reject() { facts.problem = .malformed }

    package mutating func add(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        facts.decodedBytes += name.count + value.count
        guard problem == .none else { return }
        guard facts.decodedBytes <= bytesMax else {
            facts.problem = .tooLarge
            return
        }
        guard FieldText.isValue(value), !name.isEmpty else {
            facts.problem = .malformed
            return
        }
        if name[0] == 0x3A {
            addPseudo(name, value)
        } else {
            addRegular(name, value)
        }
    }

    private mutating func addPseudo(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        let pseudo: Pseudo
        switch name.count {
        case 5 where Self.equals(name, ":path"): pseudo = .path
        case 7 where Self.equals(name, ":method"): pseudo = .method
        case 7 where Self.equals(name, ":scheme"): pseudo = .scheme
        case 7 where Self.equals(name, ":status"): pseudo = .status
        case 9 where Self.equals(name, ":protocol"): pseudo = .protocolName
        case 10 where Self.equals(name, ":authority"): pseudo = .authority
        default:
            facts.problem = .malformed
            return
        }
        // Pseudo-header fields stand once each, and before all others.
        guard facts.fieldCount == 0, !facts.isPresent[pseudo.rawValue] else {
            facts.problem = .malformed
            return
        }
        keep(pseudo, value)
    }

    private mutating func keep(_ pseudo: Pseudo, _ value: Span<UInt8>) {
        // These become parts of a request line or of Host: no space may stand in them.
        guard !value.isEmpty, FieldText.hasNoBlank(value) else {
            facts.problem = .malformed
            return
        }
        let start = values.count
        values.append(value)
        facts.ranges[pseudo.rawValue] = start..<values.count
        facts.isPresent[pseudo.rawValue] = true
    }

    private mutating func addRegular(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        guard let id = FieldText.identify(lowercase: name) else {
            facts.problem = .malformed
            return
        }
        facts.fieldCount += 1
        guard facts.fieldCount <= fieldsMax else {
            facts.problem = .tooLarge
            return
        }
        switch id {
        case .host:
            guard !facts.isPresent[Pseudo.host.rawValue] else {
                facts.problem = .malformed
                return
            }
            keep(.host, value)
            return
        case .connection, .proxyConnection, .keepAlive, .transferEncoding, .upgrade:
            // RFC 9113 section 8.2.2: these belong to HTTP/1.1 connections.
            facts.problem = .malformed
            return
        case .te where !value.equalsIgnoringCase("trailers"):
            facts.problem = .malformed
            return
        case .contentLength:
            guard !hasContentLength, let length = FieldText.contentLength(value) else {
                facts.problem = .malformed
                return
            }
            facts.contentLength = length
        case .contentType:
            facts.isGRPC = FieldText.isGRPC(value)
        default:
            if name.count == 6, Self.equals(name, "cookie") {
                // Crumbs of one list (RFC 9113 section 8.2.3); behind an empty one a blank would be left.
                if value.isEmpty { return }
                if !cookies.isEmpty { cookies.append("; ") }
                cookies.append(value)
                return
            }
            // The key is the gateway's: a caller's means nothing in HTTP/2 (RFC 8441 section 5).
            if name.count == 17, isWebSocket, Self.equals(name, "sec-websocket-key") { return }
        }
        var writer = ByteWriter(fields)
        writer.append(field: name, value)
        fields.commit(writer)
        entries.append(word: FieldTable.entry(id, nameCount: name.count, valueCount: value.count))
    }

    // MARK: As HTTP/1.1

    /// How a request's body goes on behind its head.
    package enum Body { case none, length, chunked, tunnel }

    /// Writes the head of a request, behind a `FieldTable` of its lines.
    ///
    /// - Parameters:
    ///   - endsStream: whether no body follows.
    ///   - nonce: 16 random bytes for `Sec-WebSocket-Key`, which HTTP/2 callers do not send (RFC 8441
    ///     section 5.1).
    ///
    /// Mutating so that it is called in place, without a copy.
    /// - Returns: how the body follows, or nil when this is no request.
    package mutating func writeRequest(
        into writer: inout ByteWriter, endsStream: Bool, nonce: (UInt64, UInt64)
    ) -> Body? {
        guard problem == .none, facts.isPresent[Pseudo.method.rawValue],
            !facts.isPresent[Pseudo.status.rawValue]
        else {
            return nil
        }
        let method = values.span(range(.method))
        let isConnect = Self.equals(method, "CONNECT")
        let isTunnel = facts.isPresent[Pseudo.protocolName.rawValue]
        guard !isTunnel || isConnect && !endsStream && !hasContentLength && hasAuthority else { return nil }
        guard let hostRange = agreedHost() else { return nil }
        // What is announced must come (RFC 9113 section 8.1.1).
        if endsStream, facts.contentLength > 0 { return nil }
        let host = values.span(hostRange)
        if isConnect, !isTunnel {
            // A plain CONNECT has neither scheme nor path (RFC 9113 section 8.5).
            guard !facts.isPresent[Pseudo.path.rawValue], !facts.isPresent[Pseudo.scheme.rawValue],
                hasAuthority
            else { return nil }
        } else {
            guard facts.isPresent[Pseudo.path.rawValue], isWholePath(method),
                facts.isPresent[Pseudo.scheme.rawValue],
                isWebScheme
            else { return nil }
        }
        let body = self.body(isTunnel: isTunnel, endsStream: endsStream)
        writeTable(hostCount: host.count, body, into: &writer)
        if isTunnel { writer.append("GET") } else { writer.append(method) }
        writer.append(byte: 0x20)
        writer.append(isConnect && !isTunnel ? host : values.span(range(.path)))
        writer.append(" HTTP/1.1\r\nHost: ")
        writer.append(host)
        writer.append("\r\n")
        writer.append(fields.readable)
        writeCookies(into: &writer)
        switch body {
        case .none, .length: break
        case .chunked: writer.append("Transfer-Encoding: chunked\r\n")
        case .tunnel: writeUpgrade(nonce, into: &writer)
        }
        writer.append("\r\n")
        return writer.overflowed ? nil : body
    }

    private func body(isTunnel: Bool, endsStream: Bool) -> Body {
        if isTunnel { return .tunnel }
        if endsStream { return .none }
        return hasContentLength ? .length : .chunked
    }

    private var isWebSocket: Bool {
        facts.isPresent[Pseudo.protocolName.rawValue]
            && values.span(range(.protocolName)).equalsIgnoringCase("websocket")
    }

    /// Tells of every line that `writeRequest` writes, in their order.
    private func writeTable(hostCount: Int, _ body: Body, into writer: inout ByteWriter) {
        let ofBody =
            switch body {
            case .none, .length: 0
            case .chunked: 1
            case .tunnel: isWebSocket ? 3 : 2
            }
        writer.append(word: UInt64(1 + entries.count / 8 + (cookies.isEmpty ? 0 : 1) + ofBody))
        writer.append(word: FieldTable.entry(.host, nameCount: 4, valueCount: hostCount))
        writer.append(entries.readable)
        if !cookies.isEmpty {
            writer.append(word: FieldTable.entry(.other, nameCount: 6, valueCount: cookies.count))
        }
        switch body {
        case .none, .length: break
        case .chunked:
            writer.append(word: FieldTable.entry(.transferEncoding, nameCount: 17, valueCount: 7))
        case .tunnel:
            let name = range(.protocolName)
            writer.append(word: FieldTable.entry(.connection, nameCount: 10, valueCount: 7))
            writer.append(word: FieldTable.entry(.upgrade, nameCount: 7, valueCount: name.count))
            guard isWebSocket else { break }
            writer.append(word: FieldTable.entry(.other, nameCount: 17, valueCount: 24))
        }
    }

    /// What a tunnel is asked for with in HTTP/1.1.
    private func writeUpgrade(_ nonce: (UInt64, UInt64), into writer: inout ByteWriter) {
        writer.append("Connection: Upgrade\r\nUpgrade: ")
        writer.append(values.span(range(.protocolName)))
        writer.append("\r\n")
        guard isWebSocket else { return }
        writer.append("Sec-WebSocket-Key: ")
        Base64.write(16, into: &writer) { index in
            let word = index < 8 ? nonce.0 : nonce.1
            return UInt8(truncatingIfNeeded: word >> UInt64(56 - 8 * (index & 7)))
        }
        writer.append("\r\n")
    }

    /// Whether this is the head of a HEAD request.
    package var isHead: Bool { Self.equals(values.span(range(.method)), "HEAD") }

    /// Writes the head of a response, or nil when this is none.
    ///
    /// - Returns: its status, and whether a body follows in chunks.
    package func writeResponse(
        into writer: inout ByteWriter, endsStream: Bool, hasBody: Bool
    ) -> (status: Int, isChunked: Bool)? {
        guard problem == .none, facts.isPresent[Pseudo.status.rawValue],
            !facts.isPresent[Pseudo.method.rawValue]
        else {
            return nil
        }
        let text = values.span(range(.status))
        guard text.count == 3 else { return nil }
        var status = 0
        for index in 0..<3 {
            guard text[index] &- 48 < 10 else { return nil }
            status = status * 10 + Int(text[index] - 48)
        }
        writer.append("HTTP/1.1 ")
        writer.append(text)
        writer.append(" \r\n")
        writer.append(fields.readable)
        writeCookies(into: &writer)
        var isChunked = false
        if status >= 200, hasBody, !hasContentLength, status != 204, status != 304 {
            if endsStream {
                writer.append("Content-Length: 0\r\n")
            } else {
                writer.append("Transfer-Encoding: chunked\r\n")
                isChunked = true
            }
        }
        writer.append("\r\n")
        return writer.overflowed ? nil : (status, isChunked)
    }

    /// Whether this is the head of a response whose status means success.
    package var isSuccess: Bool {
        let status = values.span(range(.status))
        return problem == .none && status.count == 3 && status[0] == 0x32
    }

    /// Writes the agreement of an upstream of HTTP/2 to a tunnel (RFC 8441 section 5) as HTTP/1.1 has it.
    ///
    /// - Parameters:
    ///   - protocolName: what was asked for.
    ///   - key: the caller's `Sec-WebSocket-Key`, empty where it has none.
    package func writeSwitch(
        into writer: inout ByteWriter, protocolName: Span<UInt8>, key: Span<UInt8>
    ) {
        writer.append("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ")
        writer.append(protocolName)
        writer.append("\r\n")
        if !key.isEmpty {
            writer.append("Sec-WebSocket-Accept: ")
            WebSocketAccept.write(key, into: &writer)
            writer.append("\r\n")
        }
        writer.append(fields.readable)
        writer.append("\r\n")
    }

    /// Whether these are fields that may end a message: no pseudo-header field is among them (RFC 9113
    /// section 8.1). What else has no place there is left out further on.
    package var isTrailerSection: Bool {
        guard problem == .none else { return false }
        for index in 0..<Pseudo.host.rawValue where facts.isPresent[index] { return false }
        return true
    }

    /// Writes a trailer section with its final blank line; empty when this is none.
    package func writeTrailers(into writer: inout ByteWriter) {
        if problem == .none { writer.append(fields.readable) }
        writer.append("\r\n")
    }

    private func writeCookies(into writer: inout ByteWriter) {
        guard !cookies.isEmpty else { return }
        writer.append("cookie: ")
        writer.append(cookies.readable)
        writer.append("\r\n")
    }

    /// `:authority`, or `host` where it is missing; nil when neither is there or they disagree (RFC 9113
    /// section 8.3.1).
    private func agreedHost() -> Range<Int>? {
        if hasAuthority, facts.isPresent[Pseudo.host.rawValue] {
            let isPlain = values.span(range(.scheme)).equalsIgnoringCase("http")
            let areSame = HostName.areSame(
                values.readable, range(.authority), range(.host), defaultPort: isPlain ? 80 : 443)
            return areSame ? range(.authority) : nil
        }
        let found = range(hasAuthority ? .authority : .host)
        return found.isEmpty ? nil : found
    }

    /// A path begins with a slash; OPTIONS may mean the whole server (RFC 9113 section 8.3.1).
    private func isWholePath(_ method: Span<UInt8>) -> Bool {
        let path = values.span(range(.path))
        if path.isEmpty { return false }
        return path[0] == 0x2F || Self.equals(path, "*") && Self.equals(method, "OPTIONS")
    }

    private var hasAuthority: Bool { facts.isPresent[Pseudo.authority.rawValue] }

    private var isWebScheme: Bool {
        let scheme = values.span(range(.scheme))
        return scheme.equalsIgnoringCase("https") || scheme.equalsIgnoringCase("http")
    }

    /// Where a pseudo-header field's value stands in `values`.
    private func range(_ pseudo: Pseudo) -> Range<Int> { facts.ranges[pseudo.rawValue] }

    private static func equals(_ bytes: Span<UInt8>, _ text: StaticString) -> Bool {
        bytes.equals(text)
    }
}
