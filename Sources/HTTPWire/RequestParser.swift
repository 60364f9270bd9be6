import Reactor

// The door that the wire comes through. Anything that two readers could take for two different requests is
// refused here, because the gateway vouches for the identity of every request it forwards. `parse` is given
// all bytes of a head that have arrived so far and has no memory of earlier calls, so its answer cannot
// depend on how the bytes were split.

package enum RequestParser {
    /// Reads a request head (RFC 9112).
    ///
    /// - Parameters:
    ///   - bytes: everything received that no earlier message has taken.
    ///   - head: refilled; meaningful only after `.complete`.
    package static func parse(
        _ bytes: Span<UInt8>, limits: HeadLimits, into head: inout RequestHead
    ) -> ParseResult {
        head.reset()
        let end = min(bytes.count, limits.headBytes)
        var index = 0
        // RFC 9112 section 2.2: empty lines before the request line are ignored.
        while index < end, bytes[index] == 0x0D {
            guard index &+ 1 < end else { return tooLongOrIncomplete(bytes, limits) }
            guard bytes[index &+ 1] == 0x0A else {
                return .refused(Refusal(400, "bare CR before the request line"))
            }
            index &+= 2
        }
        switch requestLine(bytes, &index, end, limits, &head) {
        case .complete: break
        case .incomplete: return tooLongOrIncomplete(bytes, limits)
        case .refused(let refusal): return .refused(refusal)
        }
        var facts = FieldFacts()
        while true {
            switch FieldSection.line(bytes, index, end) {
            case .field(let slice, let next):
                if let refusal = keep(slice, bytes, limits, &facts, &head) { return .refused(refusal) }
                index = next
            case .end(let next):
                if let refusal = facts.conclude(bytes, &head) { return .refused(refusal) }
                return .complete(next)
            case .incomplete:
                return tooLongOrIncomplete(bytes, limits)
            case .malformed(let reason):
                return .refused(Refusal(400, reason))
            }
        }
    }

    /// Reads a head that this process has written, line by line, from fields that it has checked: what
    /// `parse` would say of it, but of field lines only the ends are looked for. The request line, and what
    /// the fields mean together, are checked as those of every other request.
    package static func read(
        written bytes: Span<UInt8>, limits: HeadLimits, into head: inout RequestHead
    ) -> ParseResult {
        head.reset()
        var index = 0
        switch requestLine(bytes, &index, min(bytes.count, limits.headBytes), limits, &head) {
        case .complete: break
        case .incomplete: return .refused(.headTooLarge)
        case .refused(let refusal): return .refused(refusal)
        }
        var facts = FieldFacts()
        while index < bytes.count, bytes[index] != 0x0D {
            guard let slice = FieldSection.written(bytes, index, mayHaveAliases: true) else {
                return .refused(Refusal(400, "malformed field line"))
            }
            if let refusal = keep(slice, bytes, limits, &facts, &head) { return .refused(refusal) }
            index = slice.value.upperBound &+ 2
        }
        index &+= 2
        guard index <= min(bytes.count, limits.headBytes) else { return .refused(.headTooLarge) }
        if let refusal = facts.conclude(bytes, &head) { return .refused(refusal) }
        return .complete(index)
    }

    /// The same for a head with a `FieldTable` before its text: field lines are not looked for at all.
    /// Positions are those in `bytes`, table included, of which the limits know nothing.
    package static func read(
        tabled bytes: Span<UInt8>, limits: HeadLimits, into head: inout RequestHead
    ) -> ParseResult {
        head.reset()
        let start = FieldTable.end(bytes)
        let end = min(bytes.count, start &+ limits.headBytes)
        var index = start
        switch requestLine(bytes, &index, end, limits, &head) {
        case .complete: break
        case .incomplete: return .refused(.headTooLarge)
        case .refused(let refusal): return .refused(refusal)
        }
        var facts = FieldFacts()
        var place = FieldTable.headerBytes
        while place < start {
            let slice = FieldTable.slice(bytes.word(at: place), at: index)
            index = slice.value.upperBound &+ 2
            guard index &+ 2 <= end else { return .refused(.headTooLarge) }
            if let refusal = keep(slice, bytes, limits, &facts, &head) { return .refused(refusal) }
            place &+= FieldTable.entryBytes
        }
        guard index &+ 2 <= end else { return .refused(.headTooLarge) }
        precondition(
            bytes[index] == 0x0D && bytes[index &+ 1] == 0x0A, "a table describes the lines behind it")
        if let refusal = facts.conclude(bytes, &head) { return .refused(refusal) }
        return .complete(index &+ 2)
    }

    @inline(__always)
    private static func keep(
        _ slice: FieldSlice, _ bytes: Span<UInt8>, _ limits: HeadLimits, _ facts: inout FieldFacts,
        _ head: inout RequestHead
    ) -> Refusal? {
        guard head.fieldCount < limits.fields, head.fieldCount < RequestHead.fieldsHardMaximum else {
            return Refusal(431, "too many header fields")
        }
        if slice.id != .other, let refusal = facts.note(slice, bytes, &head) { return refusal }
        head.fields[head.fieldCount] = slice
        head.fieldCount &+= 1
        return nil
    }

    /// Bytes of the longest method that is forwarded; RFC 9112 section 3 has 501 for longer ones.
    private static let methodBytesMax = 256

    private static func tooLongOrIncomplete(_ bytes: Span<UInt8>, _ limits: HeadLimits) -> ParseResult {
        bytes.count >= limits.headBytes
            ? .refused(Refusal(431, "the request head is too large")) : .incomplete
    }

    /// `method SP request-target SP HTTP-version CRLF` (RFC 9112 section 3), single spaces only.
    private static func requestLine(
        _ bytes: Span<UInt8>, _ index: inout Int, _ end: Int, _ limits: HeadLimits, _ head: inout RequestHead
    ) -> ParseResult {
        let methodStart = index
        while index < end, ByteClass.isToken(bytes[index]) { index &+= 1 }
        guard index &- methodStart <= methodBytesMax else {
            return .refused(Refusal(501, "the method is longer than any that is known"))
        }
        guard index < end else { return .incomplete }
        guard bytes[index] == 0x20, index > methodStart else {
            return .refused(Refusal(400, "malformed request line"))
        }
        head.methodRange = methodStart..<index
        head.method = Method.identify(bytes, head.methodRange)
        index &+= 1
        let targetStart = index
        var queryStart = -1
        while index < end {
            let byte = bytes[index]
            if ByteClass.isPath(byte) {
                index &+= 1
                continue
            }
            if byte == 0x3F, queryStart < 0 { queryStart = index }
            guard queryStart >= 0, ByteClass.isQuery(byte) else { break }
            index &+= 1
        }
        guard index &- targetStart <= limits.targetBytes else {
            return .refused(Refusal(414, "the request target is too long"))
        }
        guard index < end else { return .incomplete }
        guard bytes[index] == 0x20, index > targetStart else {
            return .refused(Refusal(400, "malformed request target"))
        }
        head.target = targetStart..<index
        head.query = queryStart < 0 ? index..<index : queryStart..<index
        if let refusal = readTarget(bytes, &head) { return .refused(refusal) }
        index &+= 1
        return version(bytes, &index, end, &head)
    }

    private static func version(
        _ bytes: Span<UInt8>, _ index: inout Int, _ end: Int, _ head: inout RequestHead
    ) -> ParseResult {
        if index &+ 10 <= end, bytes.word(at: index) == ByteClass.version11, bytes[index &+ 8] == 0x0D,
            bytes[index &+ 9] == 0x0A
        {
            head.minorVersion = 1
            index &+= 10
            return .complete(index)
        }
        // "HTTP/" in upper case, a digit, a dot, a digit (RFC 9112 section 2.3).
        let expected: UInt64 = 0x48_5454_502F
        var position = 0
        while position < 10 {
            guard index &+ position < end else { return .incomplete }
            let byte = bytes[index &+ position]
            switch position {
            case 0...4:
                guard UInt64(byte) == (expected >> UInt64((4 - position) * 8)) & 0xFF else {
                    return .refused(Refusal(400, "malformed request line"))
                }
            case 5, 7:
                guard ByteClass.isDigit(byte) else {
                    return .refused(Refusal(400, "malformed HTTP version"))
                }
            case 6:
                guard byte == 0x2E else { return .refused(Refusal(400, "malformed HTTP version")) }
            case 8:
                guard byte == 0x0D else { return .refused(Refusal(400, "malformed request line")) }
            default:
                guard byte == 0x0A else { return .refused(Refusal(400, "bare CR in the request line")) }
            }
            position += 1
        }
        guard bytes[index &+ 5] == 0x31 else {
            return .refused(Refusal(505, "only HTTP/1.0 and HTTP/1.1 are spoken here"))
        }
        // RFC 9110 section 2.5: a higher minor version is read as the highest that is known.
        head.minorVersion = bytes[index &+ 7] == 0x30 ? 0 : 1
        index &+= 10
        return .complete(index)
    }

    /// Tells the four forms apart and finds the path (RFC 9112 section 3.2).
    private static func readTarget(_ bytes: Span<UInt8>, _ head: inout RequestHead) -> Refusal? {
        let target = head.target
        if head.method == .connect {
            head.targetForm = .authority
            head.path = target.upperBound..<target.upperBound
            return Refusal(405, "CONNECT is not offered here")
        }
        if bytes[target.lowerBound] == 0x2F {
            head.targetForm = .origin
            head.path = target.lowerBound..<head.query.lowerBound
            return nil
        }
        if target.count == 1, bytes[target.lowerBound] == 0x2A {
            head.targetForm = .asterisk
            head.path = target
            return head.method == .options ? nil : Refusal(400, "the target * belongs to OPTIONS")
        }
        guard let authority = AbsoluteTarget.authority(bytes, target)?.range else {
            return Refusal(400, "malformed request target")
        }
        head.targetForm = .absolute
        guard authority.upperBound <= head.query.lowerBound else {
            return Refusal(400, "malformed request target")
        }
        head.path = authority.upperBound..<head.query.lowerBound
        // RFC 9112 section 3.2.4: what `OPTIONS *` looks like to a proxy.
        if head.method == .options, authority.upperBound == target.upperBound { head.targetForm = .asterisk }
        return nil
    }
}

/// `http://authority/path` as a request target.
enum AbsoluteTarget {
    /// Where the authority stands, and the port that its scheme implies; nil when the target is not `http` or
    /// `https` followed by one.
    static func authority(
        _ bytes: Span<UInt8>, _ target: Range<Int>
    ) -> (range: Range<Int>, defaultPort: Int)? {
        guard target.count > 7, bytes[target.lowerBound] != 0x2F else { return nil }
        var start = target.lowerBound
        var port = 443
        if target.count > 8, bytes.isToken(start..<start + 8, 8, 0x6874_7470_733A_2F2F) {
            start += 8
        } else if bytes.isToken(start..<start + 7, 7, 0x68_7474_703A_2F2F) {
            start += 7
            port = 80
        } else {
            return nil
        }
        var end = start
        while end < target.upperBound, bytes[end] != 0x2F, bytes[end] != 0x3F { end += 1 }
        return end > start ? (start..<end, port) : nil
    }
}
