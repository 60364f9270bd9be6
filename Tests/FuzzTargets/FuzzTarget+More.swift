import Configuration
import HTTP2
import HTTPWire
import Keys
import Reactor
import Synchronization

extension FuzzTarget {
    /// A record as the store would return it: what is read and written again is the same record.
    static func record(_ bytes: [UInt8]) throws(FuzzFinding) {
        let texts = bytes.split(separator: 0, omittingEmptySubsequences: false)
            .map { String(decoding: $0, as: UTF8.self) }
        let fields = stride(from: 0, to: texts.count - 1, by: 2).map { (texts[$0], texts[$0 + 1]) }
        guard let digest = Digest256(hex: String(repeating: "a", count: 64)),
            let record = try? KeyRecord(digest: digest, fields: fields, isTier: { $0 == "pro" })
        else { return }
        try require(record.tier == "pro", "an unknown tier was taken")
        try require(KeyRecord.isIdentifier(record.id), "an id that is none")
        try require(KeyRecord.isIdentifier(record.account), "an account that is none")
        guard let again = try? KeyRecord(digest: digest, fields: record.fields, isTier: { $0 == "pro" })
        else {
            throw FuzzFinding(description: "a record cannot be read again")
        }
        try require(
            again.fields.elementsEqual(record.fields) { $0.name == $1.name && $0.value == $1.value },
            "another record when read again")
    }

    private struct NoFiles: FileAccess {
        func read(_ path: String) -> Result<[UInt8], FileProblem> { .failure(FileProblem("no files here")) }
    }

    /// A text is a configuration, or refused with places in it.
    static func configuration(_ bytes: [UInt8]) throws(FuzzFinding) {
        guard bytes.count < 4_000 else { return }
        do {
            _ = try ConfigurationLoader.load(
                text: String(decoding: bytes, as: UTF8.self), fileName: "f", environment: ["A": "b"],
                files: NoFiles(), processors: 2)
        } catch {
            try require(!error.lines.isEmpty, "refused without a reason")
            try require(error.lines.allSatisfy { $0.hasPrefix("f:") }, "a reason without a place")
        }
    }

    /// One for all inputs: a worker's lives as long as the process.
    private static let list = Mutex(HeaderBlock(bytesMax: 4_096, fieldsMax: 16))

    private static func translate(
        _ texts: [[UInt8]], endsStream: Bool, _ list: inout HeaderBlock
    ) -> [UInt8]? {
        list.begin()
        for index in stride(from: 0, to: texts.count - 1, by: 2) {
            let name = texts[index]
            let value = texts[index + 1]
            list.add(name.span, value.span)
        }
        var block = Block.allocate(capacity: list.textBytesMax)
        defer { block.deallocate() }
        var writer = ByteWriter(block)
        guard list.writeRequest(into: &writer, endsStream: endsStream, nonce: (1, 2)) != nil else {
            return nil
        }
        block.commit(writer)
        let span = block.readable
        return (0..<span.count).map { span[$0] }
    }

    /// Fields of HTTP/2, whatever they are, become one request of HTTP/1.1 that our own parser takes whole or
    /// refuses whole: never two, and never one with bytes left over.
    static func headers2(_ bytes: [UInt8]) throws(FuzzFinding) {
        let texts = bytes.split(separator: 0x0A, omittingEmptySubsequences: false).map(Array.init)
        guard let whole = list.withLock({ Self.translate(texts, endsStream: bytes.count % 2 == 0, &$0) })
        else {
            return
        }
        let table = FieldTable.end(whole.span)
        let text = Array(whole[table...])
        var head = RequestHead()
        let limits = HeadLimits(headBytes: 65_536, fields: 64, targetBytes: 8_192)
        var again = RequestHead()
        let second = RequestParser.read(written: text.span, limits: limits, into: &again)
        var tabled = RequestHead()
        let third = RequestParser.read(tabled: whole.span, limits: limits, into: &tabled)
        switch RequestParser.parse(text.span, limits: limits, into: &head) {
        case .complete(let count):
            try require(count == text.count, "bytes are left behind a head")
            guard case .complete(count) = second, head.means(again, at: 0),
                case .complete(table + count) = third, head.means(tabled, at: table)
            else {
                throw FuzzFinding(description: "a head of ours means something else when it is read as ours")
            }
        case .incomplete: throw FuzzFinding(description: "half a head was written")
        case .refused(let refusal):
            guard case .refused(let other) = second, other.status == refusal.status,
                case .refused(let another) = third, another.status == refusal.status
            else {
                throw FuzzFinding(description: "a head of ours is let through when it is read as ours")
            }
            return
        }
        // Every line that the parser found is one that the list asked for, or one of ours.
        try require(head.fieldCount <= texts.count / 2 + 6, "lines that nobody sent")
    }
}

extension RequestHead {
    /// Whether both say the same of the same bytes, which stand `shift` further on for the other; an empty
    /// range may stand anywhere.
    fileprivate func means(_ other: borrowing RequestHead, at shift: Int) -> Bool {
        func areSame(_ one: Range<Int>, _ two: Range<Int>) -> Bool {
            one.isEmpty && two.isEmpty || one.lowerBound + shift == two.lowerBound && one.count == two.count
        }
        guard fieldCount == other.fieldCount else { return false }
        for index in 0..<fieldCount {
            let (one, two) = (field(index), other.field(index))
            guard areSame(one.name, two.name), areSame(one.value, two.value), one.id == two.id else {
                return false
            }
        }
        return method == other.method && areSame(target, other.target) && areSame(path, other.path)
            && areSame(query, other.query) && areSame(methodRange, other.methodRange)
            && areSame(host, other.host) && areSame(upgrade, other.upgrade)
            && areSame(authorization, other.authorization) && body == other.body
            && keepAlive == other.keepAlive && wantsUpgrade == other.wantsUpgrade && isGRPC == other.isGRPC
            && acceptsTrailers == other.acceptsTrailers && authorizationCount == other.authorizationCount
            && expectsContinue == other.expectsContinue && saysEmptyBody == other.saysEmptyBody
            && maxForwards == other.maxForwards && hasNominations == other.hasNominations
    }
}
