import HTTPWire
import Reactor
import Testing

/// What is looked at eight bytes at a time must say the same as byte by byte.
@Suite("Field text")
struct FieldTextTests {
    /// Every byte at every place of texts of every length up to 20.
    static func everyByteEverywhere(_ body: ([UInt8]) -> Void) {
        for length in 1...20 {
            for place in 0..<length {
                for byte in UInt8.min...UInt8.max {
                    var text = [UInt8](repeating: 0x61, count: length)
                    text[place] = byte
                    body(text)
                }
            }
        }
    }

    static let tokens = Set("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz".utf8)

    @Test("a capital or a separator in a name is found wherever it stands")
    func names() {
        Self.everyByteEverywhere { name in
            let isTaken = FieldText.identify(lowercase: name.span) != nil
            #expect(isTaken == name.allSatisfy(Self.tokens.contains), "\(name)")
        }
    }

    @Test("a control character in a value is found wherever it stands, a blank at its ends")
    func values() {
        Self.everyByteEverywhere { value in
            let isGood =
                value.allSatisfy { $0 >= 0x20 && $0 != 0x7F || $0 == 0x09 }
                && ![value.first, value.last].contains(0x20) && ![value.first, value.last].contains(0x09)
            let isTaken = FieldText.isValue(value.span)
            #expect(isTaken == isGood, "\(value)")
        }
    }

    @Test("a blank that would end a part of a request line is found wherever it stands")
    func blanks() {
        Self.everyByteEverywhere { value in
            let isFree = FieldText.hasNoBlank(value.span)
            #expect(isFree == value.allSatisfy { $0 > 0x20 }, "\(value)")
        }
    }

    @Test(
        "a name means the same alone, at the end of its bytes and before others",
        arguments: [
            "te", "via", "host", "date", "expect", "server", "trailer", "upgrade", "forwarded", "x-real-ip",
            "connection", "keep-alive", "tracestate", "set-cookie", "traceparent", "content-type",
            "max-forwards", "x-request-id", "authorization", "content-length", "http2-settings",
            "x-forwarded-for", "proxy-connection", "x-forwarded-host", "x-forwarded-port",
            "www-authenticate", "transfer-encoding", "x-forwarded-proto", "proxy-authenticate",
            "proxy-authorization", "x-gateway-account", "content_length", "x-original-url", "x-rewrite-url",
        ])
    func identities(_ name: String) throws {
        let alone = FieldText.identify(lowercase: Array(name.utf8).span)
        for before in ["", "a: b\r\n"] {
            let text = Array("\(before)\(name): x\r\n".utf8)
            var offset = before.utf8.count
            let line = FieldLines.next(text.span, &offset)?.id
            #expect(line == alone)
            #expect(alone != .other)
        }
        // One letter more or less is another name.
        let longer = FieldText.identify(lowercase: Array((name + "z").utf8).span)
        let shorter = FieldText.identify(lowercase: Array(name.utf8.dropLast()).span)
        #expect(longer != alone || alone == .gatewayIdentity)
        #expect(shorter != alone || alone == .gatewayIdentity)
    }

    @Test("a name with another separator is what a careless server takes it for, and no other name")
    func aliases() {
        let separators = Self.tokens.filter { !(48...57).contains($0) && !(97...122).contains($0) }
        let known = [
            "x-gateway-account", "x-gateway-a-name-longer-than-twenty-four", "x-forwarded-for", "x-real-ip",
            "content-length", "transfer-encoding", "keep-alive", "max-forwards", "content-type",
        ]
        for separator in separators where separator != 0x2D {
            for name in known {
                let alias = name.utf8.map { $0 == 0x2D ? separator : $0 }
                let expected = name.hasPrefix("x-gateway") ? FieldID.gatewayIdentity : .alias
                // Alone, as a field line whose end is near, and as one with more behind it.
                let alone = FieldText.identify(lowercase: alias.span)
                #expect(alone == expected, "\(name) with \(separator)")
                for rest in [": x\r\n", ": x\r\nA-Field: with a value\r\n"] {
                    let text = alias + Array(rest.utf8)
                    var offset = 0
                    let line = FieldLines.next(text.span, &offset)?.id
                    #expect(line == alone)
                    #expect(line?.isForbiddenInTrailers == true)
                }
            }
            for name in [
                "if-match", "sec-ch-ua-", "set-cookie", "www-authenticate", "x-gateways-a", "-te", "x-",
            ] {
                let other = name.utf8.map { $0 == 0x2D ? separator : $0 }
                let id = FieldText.identify(lowercase: other.span)
                #expect(id == .other, "\(name) with \(separator)")
            }
        }
    }

    @Test(
        "every name of the forwarding family is one, whatever its length",
        arguments: [
            "x-forwarded-", "x-forwarded-a", "x-forwarded-ssl", "x-forwarded-user", "x-forwarded-prefix",
            "x-forwarded-scheme", "x-forwarded-server", "x-forwarded-client-cert", "x-forwarded-client-cert-",
            "x-forwarded-client-cert-chain-of-the-caller",
        ])
    func forwardingFamily(_ name: String) {
        let id = FieldText.identify(lowercase: Array(name.utf8).span)
        #expect(id == .xForwardedOther)
        #expect(id?.isForbiddenInTrailers == true && id?.isHopByHop == false)
        let underscored = name.utf8.map { $0 == 0x2D ? 0x5F : $0 }
        let alias = FieldText.identify(lowercase: underscored.span)
        #expect(alias == .alias)
        for other in [String(name.dropFirst()), "y" + name.dropFirst(), "x-" + name, "x-forwarder-" + name] {
            let id = FieldText.identify(lowercase: Array(other.utf8).span)
            #expect(id == .other, "\(other)")
        }
    }

    @Test("an empty name is none, an empty value is one")
    func empty() {
        let nothing: [UInt8] = []
        let identity = FieldText.identify(lowercase: nothing.span)
        let isValue = FieldText.isValue(nothing.span)
        #expect(identity == nil)
        #expect(isValue)
    }

    @Test("only capitals change their case")
    func lowercase() {
        var block = Block.allocate(capacity: 32)
        defer { block.deallocate() }
        Self.everyByteEverywhere { text in
            block.clear()
            block.append(byte: 0x2A)
            block.append(lowercasing: text.span)
            let bytes = block.readable
            let expected = [0x2A] + text.map { (65...90).contains($0) ? $0 + 32 : $0 }
            #expect((0..<bytes.count).map { bytes[$0] } == expected)
        }
    }

    @Test("a text that does not fit is left out whole")
    func noRoom() {
        var block = Block.allocate(capacity: 9)
        defer { block.deallocate() }
        block.append(lowercasing: Array("ABCDEFGHIJ".utf8).span)
        #expect(block.isEmpty)
        block.append(lowercasing: Array("ABCDEFGHI".utf8).span)
        #expect(block.count == 9)
    }
}

/// A head that has been written is read again with fewer checks, and must mean the same.
@Suite("Heads of our own")
struct WrittenHeadTests {
    static let heads = [
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\n",
        "HTTP/1.1 404 \r\nx: \r\nEmpty: \r\nVia: 1.1 gateway\r\nContent-Length: 0\r\n\r\nrest",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: a: b\r\n\r\n5\r\nabcde\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX_Y: z\r\nSet-Cookie: a=b; c\r\nDate: Tue, 24 Nov 2026 00:00:00 GMT\r\n\r\n",
    ]

    @Test("reading a written head says what parsing it says", arguments: heads, [Method.get, .head])
    func same(_ text: String, _ method: Method) {
        let bytes = Array(text.utf8)
        let limits = HeadLimits(headBytes: 4_096, fields: 64, targetBytes: 0)
        var parsed = ResponseHead()
        var read = ResponseHead()
        guard
            case .complete(let count) = ResponseParser.parse(
                bytes.span, method: method, limits: limits, into: &parsed)
        else {
            Issue.record("not a head: \(text)")
            return
        }
        let end = ResponseParser.read(written: bytes.span, method: method, into: &read)
        #expect(end == count)
        let (status, expectedStatus) = (read.status, parsed.status)
        #expect(status == expectedStatus)
        let (framing, expectedFraming) = (read.framing, parsed.framing)
        #expect(framing == expectedFraming)
        let (upgrade, expectedUpgrade) = (read.upgrade, parsed.upgrade)
        #expect(upgrade == expectedUpgrade)
        let (isGRPC, expectedGRPC) = (read.isGRPC, parsed.isGRPC)
        #expect(isGRPC == expectedGRPC)
        let (fieldCount, expectedCount) = (read.fieldCount, parsed.fieldCount)
        #expect(fieldCount == expectedCount)
        for index in 0..<parsed.fieldCount {
            let (one, other) = (read.field(index), parsed.field(index))
            #expect(one.name == other.name)
            #expect(one.value == other.value)
            #expect(one.id.isHopByHop == other.id.isHopByHop)
        }
    }

    @Test("a head that does not end is none", arguments: heads)
    func cutShort(_ text: String) {
        let bytes = Array(text.utf8)
        var read = ResponseHead()
        let whole = ResponseParser.read(written: bytes.span, method: .get, into: &read) ?? 0
        for count in 0..<whole {
            let cut = Array(bytes[..<count])
            let end = ResponseParser.read(written: cut.span, method: .get, into: &read)
            #expect(end == nil)
        }
    }
}
