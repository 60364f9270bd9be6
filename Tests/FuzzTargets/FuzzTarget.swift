import Configuration
import HTTP2
import HTTPWire
import Keys
import Reactor

// What every reader of foreign bytes must keep whatever it is given, besides not crashing. libFuzzer drives
// these checks (`make fuzz`), and the tests run them over everything that it has found worth keeping.

/// What a check has found.
package struct FuzzFinding: Error, CustomStringConvertible {
    package let description: String
}

package enum FuzzTarget: String, CaseIterable, Sendable {
    case request, response, chunks, target, fields, record, configuration, headers2

    private static let limits = HeadLimits(headBytes: 4_096, fields: 32, targetBytes: 512)

    /// - Throws: what does not hold.
    package func run(_ bytes: [UInt8]) throws(FuzzFinding) {
        switch self {
        case .request: try Self.request(bytes)
        case .response: try Self.response(bytes)
        case .chunks: try Self.chunks(bytes)
        case .target: try Self.target(bytes)
        case .fields: try Self.fields(bytes)
        case .record: try Self.record(bytes)
        case .configuration: try Self.configuration(bytes)
        case .headers2: try Self.headers2(bytes)
        }
    }

    static func require(_ holds: Bool, _ text: String) throws(FuzzFinding) {
        if !holds { throw FuzzFinding(description: text) }
    }

    private enum Outcome: Equatable {
        case complete(Int)
        case incomplete
        case refused(Int)

        init(_ result: ParseResult) {
            switch result {
            case .complete(let count): self = .complete(count)
            case .incomplete: self = .incomplete
            case .refused(let refusal): self = .refused(refusal.status)
            }
        }
    }

    /// A head that is cut is incomplete, or refused as the whole one is: no split changes an answer.
    private static func request(_ bytes: [UInt8]) throws(FuzzFinding) {
        var head = RequestHead()
        let whole = Outcome(RequestParser.parse(bytes.span, limits: limits, into: &head))
        if case .complete(let end) = whole {
            try require(end <= bytes.count, "a head ends within its bytes")
            for index in 0..<head.fieldCount {
                let field = head.field(index)
                try require(
                    field.value.upperBound <= end && field.name.upperBound <= end, "fields stand in the head")
                try require(!bytes[field.name].isEmpty, "a field has a name")
                try require(
                    bytes[field.value].allSatisfy { $0 >= 0x20 && $0 != 0x7F || $0 == 0x09 },
                    "a value has no control characters")
                _ = head.isNominated(index, in: bytes.span)
            }
            try require(head.authorizationCount != 1 || head.authorization.upperBound <= end, "a credential")
            _ = BearerCredential.read(bytes.span, head.authorization)
            let isHost = HostName.isValid(bytes.span, head.host)
            try require(isHost || head.minorVersion == 0 && head.host.isEmpty, "a host is a host")
        }
        for cut in [bytes.count / 4, bytes.count / 2, max(0, bytes.count - 1)] {
            var part = RequestHead()
            let outcome = Outcome(
                RequestParser.parse(Array(bytes.prefix(cut)).span, limits: limits, into: &part))
            if case .complete(let end) = whole, cut >= end { continue }
            try require(outcome == .incomplete || outcome == whole, "another answer for \(cut) bytes")
        }
    }

    private static func response(_ bytes: [UInt8]) throws(FuzzFinding) {
        var head = ResponseHead()
        let whole = Outcome(ResponseParser.parse(bytes.span, method: .get, limits: limits, into: &head))
        if case .complete(let end) = whole {
            try require(end <= bytes.count, "a head ends within its bytes")
            try require(head.status >= 100 && head.status <= 599, "a status has a class")
            try require(head.reason.upperBound <= end, "a reason stands in the head")
            for index in 0..<head.fieldCount { _ = head.isNominated(index, in: bytes.span) }
            if head.framing == .untilClose || head.minorVersion == 0 && head.framing == .chunked {
                try require(!head.keepAlive, "a connection that ends a body is not kept")
            }
        }
        var part = ResponseHead()
        let cut = bytes.count / 2
        let outcome = Outcome(
            ResponseParser.parse(Array(bytes.prefix(cut)).span, method: .get, limits: limits, into: &part))
        if case .complete(let end) = whole, cut >= end { return }
        try require(outcome == .incomplete || outcome == whole, "another answer for \(cut) bytes")
    }

    /// Decodes in pieces and at once: the same body, or refused both times.
    private static func chunks(_ bytes: [UInt8]) throws(FuzzFinding) {
        let once = decode([bytes])
        let cut = bytes.count / 3
        try require(
            once == decode([Array(bytes[..<cut]), Array(bytes[cut...])]), "pieces read differently")
        if bytes.count < 600 {
            try require(once == decode(bytes.map { [$0] }), "single bytes read differently")
        }
        if let once { try require(once.body.count <= bytes.count, "a body is no longer than its chunks") }
    }

    private struct Decoded: Equatable {
        var body: [UInt8] = []
        var trailers: [[UInt8]] = []
    }

    private static func decode(_ pieces: [[UInt8]]) -> Decoded? {
        var decoder = ChunkDecoder()
        var result = Decoded()
        var pending: [UInt8] = []
        for piece in pieces {
            pending += piece
            var offset = 0
            reading: while true {
                switch decoder.next(pending.span, &offset) {
                case .data(let range): result.body += pending[range]
                case .trailer(let field):
                    result.trailers.append(Array(pending[field.name]) + [0x3A] + pending[field.value])
                case .end: return result
                case .needMore: break reading
                case .invalid: return nil
                }
            }
            pending.removeFirst(offset)
        }
        return nil
    }

    /// The normal form of a path is its own normal form, and holds nothing that a server reads twice.
    private static func target(_ bytes: [UInt8]) throws(FuzzFinding) {
        guard let first = normalise(bytes) else { return }
        try require(normalise(first) == first, "the normal form is not its own normal form")
        try require(first.first == 0x2F, "a path starts with a slash")
        let segments = first.split(separator: 0x2F, omittingEmptySubsequences: false)
        try require(!segments.contains([0x2E]) && !segments.contains([0x2E, 0x2E]), "a dot segment is left")
        try require(!segments.dropFirst().dropLast().contains([]), "an empty segment is left")
    }

    private static func normalise(_ bytes: [UInt8]) -> [UInt8]? {
        var block = Block.allocate(capacity: bytes.count * 3 + 16)
        defer { block.deallocate() }
        var writer = ByteWriter(block)
        if TargetNormaliser.normalise(bytes.span, 0..<bytes.count, into: &writer) != nil { return nil }
        block.commit(writer)
        let span = block.readable
        return (0..<span.count).map { span[$0] }
    }

    /// The same lines are fields in a response and in a trailer section, and written anew they are the same
    /// fields.
    private static func fields(_ bytes: [UInt8]) throws(FuzzFinding) {
        guard bytes.count < 2_000 else { return }
        var head = ResponseHead()
        let start = Array("HTTP/1.1 200 OK\r\n".utf8)
        let end: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A]
        let text = start + bytes + end
        guard case .complete = ResponseParser.parse(text.span, method: .head, limits: limits, into: &head)
        else { return }
        var again = start
        for index in 0..<head.fieldCount {
            let field = head.field(index)
            again += text[field.name] + Array(": ".utf8) + text[field.value] + [0x0D, 0x0A]
        }
        again += [0x0D, 0x0A]
        var second = ResponseHead()
        guard case .complete = ResponseParser.parse(again.span, method: .head, limits: limits, into: &second)
        else { throw FuzzFinding(description: "fields cannot be read again") }
        try require(head.fieldCount == second.fieldCount, "another number of fields")
        for index in 0..<head.fieldCount {
            try require(
                text[head.field(index).name] == again[second.field(index).name]
                    && text[head.field(index).value] == again[second.field(index).value]
                    && head.field(index).id == second.field(index).id, "another field")
        }
        // A trailer section may have fewer fields than a head.
        guard head.fieldCount <= ChunkDecoder.trailerFieldsMax else { return }
        try require(decode([Array("0\r\n".utf8) + text[start.count...]]) != nil, "no trailer section")
    }
}
