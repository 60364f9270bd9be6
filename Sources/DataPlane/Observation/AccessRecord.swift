import HTTPWire
import Keys
import Limits
package import Reactor
import Synchronization

// A worker writes one binary record a call; the log thread makes the JSON line of it. Numbers first, then the
// texts with their lengths: copying is all that a call pays for.

/// The fixed part of a record, in the order in which it is written.
struct AccessRecord {
    var wallMicroseconds: Int64 = 0
    var traceHigh: UInt64 = 0
    var traceLow: UInt64 = 0
    var durationMicroseconds: Int64 = 0
    var upstreamMicroseconds: Int64 = -1
    var bytesIn: Int64 = 0
    var bytesOut: Int64 = 0
    var limit: Int64 = -1
    var remaining: Int64 = -1
    var status: Int32 = 0
    var route: Int32 = -1
    var upstream: Int32 = -1
    var endpoint: Int32 = -1
    var reason: Reason = .none
    var method: Method = .get
    /// 0 none, 12, 13.
    var tls: UInt8 = 0
    /// Of HTTP/1, or `http2`.
    var minorVersion: UInt8 = 1

    static let http2: UInt8 = 20
    /// Of the spans of a sampled call; 0 where there is none.
    var serverSpan: UInt64 = 0
    var clientSpan: UInt64 = 0
    var parentSpan: UInt64 = 0
    /// From the call's arrival to the choice of an endpoint.
    var upstreamOffsetMicroseconds: Int64 = 0

    static let fixedBytes = 128

    /// The texts of a record, in the order in which they are written.
    enum Text: Int, CaseIterable {
        case requestID, client, path, keyID, account, tier, referrer, agent
    }

    /// Where the texts of a record stand in its block.
    struct Texts {
        fileprivate let bytes: [UInt8]
        fileprivate var ranges: [Range<Int>] = []

        /// What is no UTF-8 is repaired.
        subscript(_ text: Text) -> String { String(decoding: raw(text), as: UTF8.self) }

        func raw(_ text: Text) -> ArraySlice<UInt8> { bytes[ranges[text.rawValue]] }
    }

    func write(into writer: inout ByteWriter) {
        Self.put(UInt64(bitPattern: wallMicroseconds), into: &writer)
        Self.put(traceHigh, into: &writer)
        Self.put(traceLow, into: &writer)
        Self.put(UInt64(bitPattern: durationMicroseconds), into: &writer)
        Self.put(UInt64(bitPattern: upstreamMicroseconds), into: &writer)
        Self.put(UInt64(bitPattern: bytesIn), into: &writer)
        Self.put(UInt64(bitPattern: bytesOut), into: &writer)
        Self.put(UInt64(bitPattern: limit), into: &writer)
        Self.put(UInt64(bitPattern: remaining), into: &writer)
        Self.put(UInt64(UInt32(bitPattern: status)) << 32 | UInt64(UInt32(bitPattern: route)), into: &writer)
        let kinds =
            UInt64(reason.rawValue) << 24 | UInt64(method.rawValue) << 16 | UInt64(tls) << 8
            | UInt64(minorVersion)
        Self.put(UInt64(UInt32(bitPattern: upstream)) << 32 | kinds, into: &writer)
        Self.put(serverSpan, into: &writer)
        Self.put(clientSpan, into: &writer)
        Self.put(parentSpan, into: &writer)
        Self.put(UInt64(bitPattern: upstreamOffsetMicroseconds), into: &writer)
        Self.put(UInt64(UInt32(bitPattern: endpoint)), into: &writer)
    }

    /// Reads what `write` wrote.
    init?(_ bytes: [UInt8], at start: Int) {
        guard bytes.count - start >= Self.fixedBytes else { return nil }
        func word(_ index: Int) -> UInt64 {
            var value: UInt64 = 0
            for offset in 0..<8 { value = value << 8 | UInt64(bytes[start + index * 8 + offset]) }
            return value
        }
        wallMicroseconds = Int64(bitPattern: word(0))
        traceHigh = word(1)
        traceLow = word(2)
        durationMicroseconds = Int64(bitPattern: word(3))
        upstreamMicroseconds = Int64(bitPattern: word(4))
        bytesIn = Int64(bitPattern: word(5))
        bytesOut = Int64(bitPattern: word(6))
        limit = Int64(bitPattern: word(7))
        remaining = Int64(bitPattern: word(8))
        status = Int32(bitPattern: UInt32(truncatingIfNeeded: word(9) >> 32))
        route = Int32(bitPattern: UInt32(truncatingIfNeeded: word(9)))
        upstream = Int32(bitPattern: UInt32(truncatingIfNeeded: word(10) >> 32))
        reason = Reason(rawValue: UInt8(truncatingIfNeeded: word(10) >> 24)) ?? .none
        method = Method(rawValue: UInt8(truncatingIfNeeded: word(10) >> 16)) ?? .other
        tls = UInt8(truncatingIfNeeded: word(10) >> 8)
        minorVersion = UInt8(truncatingIfNeeded: word(10))
        serverSpan = word(11)
        clientSpan = word(12)
        parentSpan = word(13)
        upstreamOffsetMicroseconds = Int64(bitPattern: word(14))
        endpoint = Int32(bitPattern: UInt32(truncatingIfNeeded: word(15)))
    }

    init() {}

    /// Every whole record of a block, with its texts.
    static func forEach(in bytes: [UInt8], _ body: (AccessRecord, Texts) -> Void) {
        var index = 0
        while let record = AccessRecord(bytes, at: index) {
            index += fixedBytes
            var texts = Texts(bytes: bytes)
            for _ in Text.allCases {
                guard index + 2 <= bytes.count else { return }
                let count = Int(bytes[index]) << 8 | Int(bytes[index + 1])
                index += 2
                guard index + count <= bytes.count else { return }
                texts.ranges.append(index..<index + count)
                index += count
            }
            body(record, texts)
        }
    }

    @inline(__always)
    private static func put(_ value: UInt64, into writer: inout ByteWriter) {
        var rest = value
        for _ in 0..<8 {
            writer.append(byte: UInt8(truncatingIfNeeded: rest >> 56))
            rest <<= 8
        }
    }

    /// A text with its length in two bytes; longer ones are cut.
    static func put(_ text: Span<UInt8>, atMost limit: Int = 8_192, into writer: inout ByteWriter) {
        let count = min(text.count, limit)
        writer.append(byte: UInt8(truncatingIfNeeded: count >> 8))
        writer.append(byte: UInt8(truncatingIfNeeded: count))
        writer.append(text.extracting(0..<count))
    }
}

/// Blocks of records on their way to the log thread, and empty ones on their way back.
package final class AccessLogQueue: Sendable {
    struct Filled: @unchecked Sendable {
        // `@unchecked`: whoever holds the value owns the memory.
        var block: Block
    }

    private let filled: Mailbox<Filled>
    /// Blocks handed over and not yet taken, of all workers.
    let waiting = Atomic<Int>(0)

    package init() throws(SystemError) { filled = try Mailbox() }

    package var wakeup: Wakeup { filled.wakeup }

    func post(_ block: Block) { filled.post(Filled(block: block)) }

    /// The bytes of all records handed over so far, in blocks.
    package func takeAll() -> [[UInt8]] {
        filled.takeAll().map { item in
            var block = item.block
            var copy: [UInt8] = []
            copy.reserveCapacity(block.count)
            let bytes = block.readable
            for index in 0..<bytes.count { copy.append(bytes[index]) }
            block.deallocate()
            waiting.subtract(1, ordering: .relaxed)
            return copy
        }
    }
}
