import Reactor

/// How a response's body is delimited (RFC 9112 section 6.3).
package enum ResponseFraming: Sendable, Equatable {
    case none
    case length(Int64)
    case chunked
    case untilClose
}

/// A parsed response head: positions in the bytes it was parsed from.
package struct ResponseHead: ~Copyable {
    package internal(set) var status = 0
    package internal(set) var minorVersion = 1
    package internal(set) var reason = 0..<0
    package internal(set) var fieldCount = 0
    package internal(set) var fields = InlineArray<256, FieldSlice>(repeating: FieldSlice())
    package internal(set) var framing = ResponseFraming.none
    /// Whether the upstream connection may be used again once the body has been read.
    package internal(set) var keepAlive = true
    package internal(set) var hasNominations = false
    package internal(set) var hasDate = false
    /// Whether `Connection: upgrade` was sent; meaningful with 101.
    package internal(set) var hasUpgradeOption = false
    /// The value of `Upgrade`; empty when absent.
    package internal(set) var upgrade = 0..<0
    /// Whether the body is a stream of events.
    package internal(set) var isEventStream = false
    package internal(set) var isGRPC = false
    /// The value of `Content-Length`, -1 when absent; also where there is no body (HEAD, 304).
    package internal(set) var contentLength: Int64 = -1

    package init() {}

    @inlinable
    package func field(_ index: Int) -> FieldSlice {
        precondition(index >= 0 && index < fieldCount, "no such field")
        return fields[index]
    }

    package func isNominated(_ index: Int, in bytes: Span<UInt8>) -> Bool {
        guard hasNominations else { return false }
        return ConnectionOptions.nominate(field(index).name, in: fields, fieldCount, of: bytes)
    }
}

/// Reads what upstreams answer, as strictly as what callers send: nonsense becomes a 502, never a guess.
package enum ResponseParser {
    /// - Parameters:
    ///   - method: of the request; a response to HEAD has no body whatever its fields say.
    package static func parse(
        _ bytes: Span<UInt8>, method: Method, limits: HeadLimits, into head: inout ResponseHead
    ) -> ParseResult {
        begin(&head)
        let end = min(bytes.count, limits.headBytes)
        var index = 0
        switch statusLine(bytes, &index, end, &head) {
        case .complete: break
        case .incomplete: return tooLongOrIncomplete(bytes, limits)
        case .refused(let refusal): return .refused(refusal)
        }
        var connection = ConnectionOptions()
        var transferEncodings = 0
        while true {
            switch FieldSection.line(bytes, index, end) {
            case .field(let slice, let next):
                guard head.fieldCount < RequestHead.fieldsHardMaximum else {
                    return .refused(Refusal(502, "too many header fields"))
                }
                if slice.id != .other,
                    let refusal = note(slice, bytes, &head, &connection, &transferEncodings)
                {
                    return .refused(refusal)
                }
                head.fields[head.fieldCount] = slice
                head.fieldCount &+= 1
                index = next
            case .end(let next):
                if let refusal = conclude(method, connection, transferEncodings, &head) {
                    return .refused(refusal)
                }
                return .complete(next)
            case .incomplete:
                return tooLongOrIncomplete(bytes, limits)
            case .malformed(let reason):
                return .refused(Refusal(502, reason))
            }
        }
    }

    /// Reads a head again that this process has written from a parsed one: what `parse` would say of it, but
    /// its grammar is known, and only the ends of its parts are looked for.
    ///
    /// - Returns: where the body starts, or nil when this is no such head.
    package static func read(
        written bytes: Span<UInt8>, method: Method, into head: inout ResponseHead
    ) -> Int? {
        begin(&head)
        var index = 0
        guard case .complete = statusLine(bytes, &index, bytes.count, &head) else { return nil }
        var connection = ConnectionOptions()
        var transferEncodings = 0
        while head.fieldCount < RequestHead.fieldsHardMaximum {
            guard index < bytes.count, bytes[index] != 0x0D else {
                guard index &+ 2 <= bytes.count, conclude(method, connection, transferEncodings, &head) == nil
                else { return nil }
                return index &+ 2
            }
            guard let slice = FieldSection.written(bytes, index) else { return nil }
            if slice.id != .other, note(slice, bytes, &head, &connection, &transferEncodings) != nil {
                return nil
            }
            head.fields[head.fieldCount] = slice
            head.fieldCount &+= 1
            index = slice.value.upperBound &+ 2
        }
        return nil
    }

    private static func begin(_ head: inout ResponseHead) {
        head.fieldCount = 0
        head.hasNominations = false
        head.hasDate = false
        head.upgrade = 0..<0
        head.isEventStream = false
        head.isGRPC = false
        head.contentLength = -1
    }

    private static func tooLongOrIncomplete(_ bytes: Span<UInt8>, _ limits: HeadLimits) -> ParseResult {
        bytes.count >= limits.headBytes
            ? .refused(Refusal(502, "the response head is too large")) : .incomplete
    }

    /// `HTTP-version SP status-code SP [ reason-phrase ] CRLF`; the second space may be missing, because
    /// many servers leave it out.
    private static func statusLine(
        _ bytes: Span<UInt8>, _ index: inout Int, _ end: Int, _ head: inout ResponseHead
    ) -> ParseResult {
        if end <= 12 || bytes.word(at: 0) != ByteClass.version11 {
            let prefix: UInt64 = 0x4854_5450_2F31_2E00  // "HTTP/1."
            for position in 0..<7 {
                guard position < end else { return .incomplete }
                guard UInt64(bytes[position]) == (prefix >> UInt64((7 - position) * 8)) & 0xFF else {
                    return .refused(Refusal(502, "no HTTP/1 status line"))
                }
            }
            guard end > 12 else { return shortStatusLine(bytes, end) }
        }
        guard ByteClass.isDigit(bytes[7]), bytes[8] == 0x20 else {
            return .refused(Refusal(502, "malformed status line"))
        }
        // RFC 9110 section 2.5: a higher minor version is read as the highest that is known.
        head.minorVersion = bytes[7] == 0x30 ? 0 : 1
        let (hundreds, tens, ones) = (bytes[9] &- 48, bytes[10] &- 48, bytes[11] &- 48)
        guard hundreds < 10, tens < 10, ones < 10 else {
            return .refused(Refusal(502, "malformed status code"))
        }
        let status = Int(hundreds) &* 100 &+ Int(tens) &* 10 &+ Int(ones)
        guard status >= 100, status <= 599 else { return .refused(Refusal(502, "status out of range")) }
        head.status = status
        index = 12
        if bytes[index] == 0x20 {
            index = 13
        } else if bytes[index] != 0x0D {
            return .refused(Refusal(502, "malformed status line"))
        }
        let reasonStart = index
        index = ByteClass.endOfFieldValue(bytes, index, end)
        guard index &+ 1 < end else {
            return index < end && bytes[index] != 0x0D
                ? .refused(Refusal(502, "malformed status line")) : .incomplete
        }
        guard bytes[index] == 0x0D, bytes[index &+ 1] == 0x0A else {
            return .refused(Refusal(502, "malformed status line"))
        }
        head.reason = reasonStart..<index
        index &+= 2
        return .complete(index)
    }

    /// Tells nonsense from an early part of a status line.
    private static func shortStatusLine(_ bytes: Span<UInt8>, _ end: Int) -> ParseResult {
        for position in 7..<max(7, end) {
            let byte = bytes[position]
            let isRight = position == 8 ? byte == 0x20 : ByteClass.isDigit(byte)
            guard isRight || position == 12 else {
                return .refused(Refusal(502, "malformed status line"))
            }
        }
        return .incomplete
    }

    private static func note(
        _ slice: FieldSlice, _ bytes: Span<UInt8>, _ head: inout ResponseHead,
        _ connection: inout ConnectionOptions, _ transferEncodings: inout Int
    ) -> Refusal? {
        switch slice.id {
        case .contentLength:
            guard head.contentLength < 0 else { return Refusal(502, "more than one Content-Length") }
            guard let length = FieldSection.contentLength(bytes, slice.value) else {
                return Refusal(502, "malformed Content-Length")
            }
            head.contentLength = length
        case .transferEncoding:
            transferEncodings += 1
            guard transferEncodings == 1, FieldSection.isChunked(bytes, slice.value) else {
                return Refusal(502, "a transfer coding other than exactly chunked")
            }
        case .connection:
            connection.read(slice.value, of: bytes)
        case .date:
            head.hasDate = true
        case .upgrade:
            head.upgrade = slice.value
        case .contentType:
            head.isGRPC = FieldFacts.isGRPC(bytes, slice.value)
            // "text/event-stream", alone or with parameters.
            head.isEventStream =
                slice.value.count >= 17
                && bytes.extracting(slice.value.lowerBound..<slice.value.lowerBound + 17)
                    .equalsIgnoringCase("text/event-stream")
        default: break
        }
        return nil
    }

    private static func conclude(
        _ method: Method, _ connection: ConnectionOptions, _ transferEncodings: Int,
        _ head: inout ResponseHead
    ) -> Refusal? {
        if connection.isMalformed { return Refusal(502, "malformed Connection") }
        head.hasNominations = connection.nominates
        head.hasUpgradeOption = connection.upgrade
        if transferEncodings > 0 {
            guard head.minorVersion == 1 else {
                return Refusal(502, "Transfer-Encoding in an HTTP/1.0 response")
            }
            guard head.contentLength < 0 else {
                return Refusal(502, "both Content-Length and Transfer-Encoding")
            }
        }
        if method == .head || head.status < 200 || head.status == 204 || head.status == 304 {
            head.framing = .none
        } else if transferEncodings > 0 {
            head.framing = .chunked
        } else if head.contentLength >= 0 {
            head.framing = .length(head.contentLength)
        } else {
            head.framing = .untilClose
        }
        let persists =
            head.minorVersion == 1 ? !connection.close : connection.keepAlive && !connection.close
        head.keepAlive = persists && head.framing != .untilClose
        // Without content by definition, yet said to have some (RFC 9110 section 8.6, RFC 9112 section 6.1):
        // if it comes after all, it must not be read as the next answer.
        if head.status == 204, transferEncodings > 0 || head.contentLength > 0 { head.keepAlive = false }
        return nil
    }
}
