import HTTPWire
import Reactor

// One target for all parsers: the first byte chooses. What must hold besides "no crash": an answer never
// changes when the bytes come in two pieces, and what the normaliser makes is its own normal form.

@c(LLVMFuzzerTestOneInput)
public func fuzz(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count > 1 else { return 0 }
    let bytes = unsafe Array(UnsafeBufferPointer(start: data + 1, count: count - 1))
    switch unsafe data[0] & 3 {
    case 0: request(bytes)
    case 1: response(bytes)
    case 2: chunks(bytes)
    default: target(bytes)
    }
    return 0
}

private let limits = HeadLimits(headBytes: 4_096, fields: 32, targetBytes: 512)

private func request(_ bytes: [UInt8]) {
    var head = RequestHead()
    let whole = RequestParser.parse(bytes.span, limits: limits, into: &head)
    if case .complete(let end) = whole {
        precondition(end <= bytes.count, "a head ends within its bytes")
        for index in 0..<head.fieldCount {
            let field = head.field(index)
            precondition(
                field.value.upperBound <= end && field.name.upperBound <= end, "fields stand in the head")
            _ = head.isNominated(index, in: bytes.span)
        }
        _ = BearerCredential.read(bytes.span, head.authorization)
        var shorter = RequestHead()
        let half = Array(bytes.prefix(end / 2))
        if case .complete = RequestParser.parse(half.span, limits: limits, into: &shorter) {
            preconditionFailure("half a head was taken for whole")
        }
    }
}

private func response(_ bytes: [UInt8]) {
    var head = ResponseHead()
    if case .complete(let end) = ResponseParser.parse(bytes.span, method: .get, limits: limits, into: &head) {
        precondition(end <= bytes.count && head.status >= 100 && head.status <= 599, "a head is a head")
    }
}

/// Decodes in two pieces and at once: the same body, or refused both times.
private func chunks(_ bytes: [UInt8]) {
    let cut = bytes.count / 3
    let once = decode([bytes])
    let twice = decode([Array(bytes[..<cut]), Array(bytes[cut...])])
    precondition(once == twice, "chunks read differently in two pieces")
}

private func decode(_ pieces: [[UInt8]]) -> [UInt8]? {
    var decoder = ChunkDecoder()
    var body: [UInt8] = []
    var pending: [UInt8] = []
    for piece in pieces {
        pending += piece
        var offset = 0
        reading: while true {
            switch decoder.next(pending.span, &offset) {
            case .data(let range): body += pending[range]
            case .trailer: continue
            case .end: return body
            case .needMore: break reading
            case .invalid: return nil
            }
        }
        pending.removeFirst(offset)
    }
    return body
}

private func target(_ bytes: [UInt8]) {
    guard let first = normalise(bytes) else { return }
    precondition(normalise(first) == first, "the normal form is not its own normal form")
    precondition(first.first == 0x2F, "a path starts with a slash")
}

private func normalise(_ bytes: [UInt8]) -> [UInt8]? {
    var block = Block.allocate(capacity: bytes.count * 3 + 16)
    defer { block.deallocate() }
    var writer = ByteWriter(block)
    if TargetNormaliser.normalise(bytes.span, 0..<bytes.count, into: &writer) != nil { return nil }
    block.commit(writer)
    let span = block.readable
    return (0..<span.count).map { span[$0] }
}
