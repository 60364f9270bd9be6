/// What the chunk decoder found next.
package enum ChunkEvent {
    /// Body bytes at this place; all of them count as consumed.
    case data(Range<Int>)
    /// A trailer field that may be forwarded.
    case trailer(FieldSlice)
    /// The message is over.
    case end
    /// Everything usable has been taken; what is left must be kept and shown again with more behind it.
    case needMore
    case invalid(StaticString)
}

/// Decodes the chunked coding (RFC 9112 section 7.1), one event at a time, in constant space.
///
/// Chunk extensions are checked and dropped, trailer fields are handed out line by line.
package struct ChunkDecoder: Sendable {
    private enum State: UInt8 {
        case size, lineFeed, data, dataReturn, dataLineFeed, trailers, done
        /// Behind white space that only an extension may follow.
        case semicolon
        case nameStart, name, nameSpace, valueStart, value, quoted, quotedPair, valueEnd
    }

    /// Bytes of one chunk's extensions and leading zeros.
    package static let extensionBytesMax = 4_096
    /// Bytes by which extensions may outgrow what their chunks allow them, 16 and two for each byte of
    /// data, over the whole message: nobody uses them much, attackers flood with them.
    package static let extensionExcessMax: Int64 = 16_384
    /// Bytes of the trailer section of a request.
    package static let trailerBytesMax = 8_192
    /// The same of an answer: gRPC has its errors there with all their details.
    package static let answerTrailerBytesMax = 32_768
    /// Fields of a trailer section.
    package static let trailerFieldsMax = 100

    private var state = State.size
    private var digits: UInt8 = 0
    private var remaining: Int64 = 0
    private var extensionBytes: Int32 = 0
    private var extensionExcess: Int64 = 0
    private var trailerBytes: Int32 = 0
    private var trailerFields: Int32 = 0
    private let isOfAnswer: Bool

    /// - Parameter isOfAnswer: whether the body is an upstream's.
    package init(isOfAnswer: Bool = false) { self.isOfAnswer = isOfAnswer }

    /// Whether the last chunk and its trailers have been read.
    package var isDone: Bool { state == .done }

    /// Bytes of the present chunk that are still to come.
    package var announced: Int64 { state == .data ? remaining : 0 }

    /// What is wrong with what has come of a body from `start` on; nil when nothing is so far.
    package static func problem(
        in bytes: Span<UInt8>, from start: Int, isOfAnswer: Bool = false
    ) -> StaticString? {
        var decoder = ChunkDecoder(isOfAnswer: isOfAnswer)
        var offset = start
        while true {
            switch decoder.next(bytes, &offset) {
            case .data, .trailer: continue
            case .end, .needMore: return nil
            case .invalid(let problem): return problem
            }
        }
    }

    /// Goes on at `offset`, and moves it behind what the event covers.
    package mutating func next(_ bytes: Span<UInt8>, _ offset: inout Int) -> ChunkEvent {
        while offset < bytes.count {
            switch state {
            case .data:
                let n = Int(min(remaining, Int64(bytes.count - offset)))
                let range = offset..<offset + n
                remaining -= Int64(n)
                offset += n
                if remaining == 0 { state = .dataReturn }
                return .data(range)
            case .trailers:
                return trailerLine(bytes, &offset)
            case .done:
                return .end
            default:
                if let problem = step(bytes[offset]) { return .invalid(problem) }
                offset += 1
            }
        }
        return state == .done ? .end : .needMore
    }

    /// One byte of a chunk's head or of the line end behind its data.
    private mutating func step(_ byte: UInt8) -> StaticString? {
        switch state {
        case .size: return stepSize(byte)
        case .lineFeed:
            guard byte == 0x0A else { return "bare CR in a chunk size" }
            return endSizeLine()
        case .dataReturn:
            guard byte == 0x0D else { return "a chunk is longer than announced" }
            state = .dataLineFeed
        case .dataLineFeed:
            guard byte == 0x0A else { return "bare CR behind a chunk" }
            state = .size
        case .data, .trailers, .done: break
        default: return stepExtension(byte)
        }
        return nil
    }

    private mutating func stepSize(_ byte: UInt8) -> StaticString? {
        if let digit = ByteClass.hexadecimal(byte) {
            if digit == 0, remaining == 0, digits > 0 { return countExtensionByte() }
            // 15 digits stay below 2^60.
            guard digits < 15 || remaining == 0 else { return "a chunk size is too long" }
            digits = remaining == 0 ? 1 : digits + 1
            remaining = remaining << 4 | Int64(digit)
            return nil
        }
        guard digits > 0 else { return "malformed chunk size" }
        switch byte {
        case 0x0D: state = .lineFeed
        case 0x3B: state = .nameStart
        case 0x20, 0x09: state = .semicolon
        default: return "malformed chunk size"
        }
        return nil
    }

    private mutating func endSizeLine() -> StaticString? {
        if extensionBytes > 0 || extensionExcess > 0 {
            let allowance = 16 &+ 2 &* min(remaining, Self.extensionExcessMax)
            extensionExcess = max(0, extensionExcess + Int64(extensionBytes) - allowance)
            guard extensionExcess <= Self.extensionExcessMax else { return "too many chunk extensions" }
        }
        state = remaining == 0 ? .trailers : .data
        digits = 0
        extensionBytes = 0
        return nil
    }

    private mutating func countExtensionByte() -> StaticString? {
        extensionBytes += 1
        return extensionBytes <= Self.extensionBytesMax ? nil : "too many chunk extensions"
    }

    /// `*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )` (RFC 9112 section 7.1.1).
    private mutating func stepExtension(_ byte: UInt8) -> StaticString? {
        if let problem = countExtensionByte() { return problem }
        let isSpace = byte == 0x20 || byte == 0x09
        let isToken = ByteClass.isToken(byte)
        switch (state, byte) {
        case (.quotedPair, _) where ByteClass.isFieldValue(byte): state = .quoted
        case (.quoted, 0x22): state = .valueEnd
        case (.quoted, 0x5C): state = .quotedPair
        case (.quoted, _) where ByteClass.isFieldValue(byte): break
        case (.semicolon, _) where isSpace, (.nameStart, _) where isSpace, (.nameSpace, _) where isSpace,
            (.valueStart, _) where isSpace:
            break
        case (.nameStart, _) where isToken, (.name, _) where isToken: state = .name
        case (.valueStart, _) where isToken, (.value, _) where isToken: state = .value
        case (.valueStart, 0x22): state = .quoted
        case (.name, 0x3D), (.nameSpace, 0x3D): state = .valueStart
        case (.semicolon, 0x3B), (.name, 0x3B), (.nameSpace, 0x3B), (.value, 0x3B), (.valueEnd, 0x3B):
            state = .nameStart
        case (.name, 0x0D), (.value, 0x0D), (.valueEnd, 0x0D): state = .lineFeed
        case (.name, _) where isSpace: state = .nameSpace
        case (.value, _) where isSpace, (.valueEnd, _) where isSpace: state = .semicolon
        default: return "malformed chunk extension"
        }
        return nil
    }

    private mutating func trailerLine(_ bytes: Span<UInt8>, _ offset: inout Int) -> ChunkEvent {
        let room = (isOfAnswer ? Self.answerTrailerBytesMax : Self.trailerBytesMax) - Int(trailerBytes)
        let end = min(bytes.count, offset + room)
        switch FieldSection.line(bytes, offset, end) {
        case .incomplete:
            return bytes.count - offset >= room ? .invalid("the trailer section is too large") : .needMore
        case .malformed(let reason): return .invalid(reason)
        case .end(let next):
            offset = next
            state = .done
            return .end
        case .field(let slice, let next):
            trailerBytes += Int32(truncatingIfNeeded: next - offset)
            trailerFields += 1
            guard trailerFields <= Self.trailerFieldsMax else { return .invalid("too many trailer fields") }
            offset = next
            let isForbidden =
                slice.id.isForbiddenInTrailers || slice.id.isHopByHop
                || slice.id == .other && FieldText.isForbiddenInTrailers(bytes.extracting(slice.name))
            return isForbidden ? self.next(bytes, &offset) : .trailer(slice)
        }
    }
}
