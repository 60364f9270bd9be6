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
        case size, sizeLineFeed, extensions, quoted, quotedPair, data, dataReturn, dataLineFeed, trailers,
            done
    }

    /// Bytes of extensions that a message may carry in all: nobody uses them, attackers flood with them.
    package static let extensionBytesMax = 1_024
    /// Bytes of the trailer section.
    package static let trailerBytesMax = 8_192
    /// Fields of the trailer section.
    package static let trailerFieldsMax = 32

    private var state = State.size
    private var digits: UInt8 = 0
    private var remaining: Int64 = 0
    private var extensionBytes: Int32 = 0
    private var trailerBytes: Int32 = 0
    private var trailerFields: Int32 = 0

    package init() {}

    /// Whether the last chunk and its trailers have been read.
    package var isDone: Bool { state == .done }

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
        case .sizeLineFeed:
            guard byte == 0x0A else { return "bare CR in a chunk size" }
            state = remaining == 0 ? .trailers : .data
            digits = 0
        case .extensions, .quoted, .quotedPair:
            return stepExtension(byte)
        case .dataReturn:
            guard byte == 0x0D else { return "a chunk is longer than announced" }
            state = .dataLineFeed
        case .dataLineFeed:
            guard byte == 0x0A else { return "bare CR behind a chunk" }
            state = .size
        case .data, .trailers, .done: break
        }
        return nil
    }

    private mutating func stepSize(_ byte: UInt8) -> StaticString? {
        if let digit = ByteClass.hexadecimal(byte) {
            // 15 digits stay below 2^60; a 16th, even a leading zero, has no honest use.
            guard digits < 15 else { return "a chunk size is too long" }
            digits += 1
            remaining = remaining << 4 | Int64(digit)
            return nil
        }
        guard digits > 0 else { return "malformed chunk size" }
        switch byte {
        case 0x0D: state = .sizeLineFeed
        case 0x3B: state = .extensions
        default: return "malformed chunk size"
        }
        return nil
    }

    private mutating func stepExtension(_ byte: UInt8) -> StaticString? {
        extensionBytes += 1
        guard extensionBytes <= Self.extensionBytesMax else { return "too many chunk extensions" }
        switch state {
        case .quotedPair:
            guard ByteClass.isFieldValue(byte) else { return "malformed chunk extension" }
            state = .quoted
        case .quoted:
            guard ByteClass.isFieldValue(byte) else { return "malformed chunk extension" }
            if byte == 0x22 { state = .extensions } else if byte == 0x5C { state = .quotedPair }
        default:
            switch byte {
            case 0x0D: state = .sizeLineFeed
            case 0x22: state = .quoted
            case 0x3B, 0x3D, 0x20, 0x09: break
            default:
                guard ByteClass.isToken(byte) else { return "malformed chunk extension" }
            }
        }
        return nil
    }

    private mutating func trailerLine(_ bytes: Span<UInt8>, _ offset: inout Int) -> ChunkEvent {
        let room = Self.trailerBytesMax - Int(trailerBytes)
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
            if slice.id.isForbiddenInTrailers || slice.id.isHopByHop { return self.next(bytes, &offset) }
            return .trailer(slice)
        }
    }
}
