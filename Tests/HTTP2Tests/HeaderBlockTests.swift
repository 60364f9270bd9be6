import HTTP2
import HTTPWire
import Reactor
import Testing

/// Field lists that could become two readings of one request once they are HTTP/1.1.
@Suite("HTTP/2 header blocks")
struct HeaderBlockTests {
    typealias Fields = [(String, String)]

    /// The head that a list becomes, or nil.
    static func request(_ fields: Fields, endsStream: Bool = true) -> String? {
        var block = HeaderBlock(bytesMax: 4_096, fieldsMax: 8)
        block.begin()
        for (name, value) in fields { block.add(Array(name.utf8).span, Array(value.utf8).span) }
        var text = Block.allocate(capacity: 8_192)
        defer { text.deallocate() }
        var writer = ByteWriter(text)
        guard block.writeRequest(into: &writer, endsStream: endsStream, nonce: (1, 2)) != nil else {
            return nil
        }
        text.commit(writer)
        text.consume(FieldTable.end(text.readable))
        let bytes = text.readable
        return String(decoding: (0..<bytes.count).map { bytes[$0] }, as: UTF8.self)
    }

    static let get: Fields = [
        (":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", "/x?y"),
    ]

    @Test("a plain request is written as HTTP/1.1")
    func plain() {
        #expect(
            Self.request(Self.get + [("accept", "*/*"), ("cookie", "a=1"), ("cookie", "b=2")])
                == "GET /x?y HTTP/1.1\r\nHost: a.example\r\naccept: */*\r\ncookie: a=1; b=2\r\n\r\n")
    }

    @Test("an empty crumb of cookies leaves no blank behind", arguments: [0, 1, 2])
    func emptyCrumb(_ place: Int) {
        var crumbs: Fields = [("cookie", "a=1"), ("cookie", "b=2")]
        crumbs.insert(("cookie", ""), at: place)
        #expect(Self.request(Self.get + crumbs)?.hasSuffix("\r\ncookie: a=1; b=2\r\n\r\n") == true)
        #expect(Self.request(Self.get + [("cookie", "")])?.contains("cookie") == false)
    }

    @Test("a body without a length is chunked, one with a length keeps it")
    func bodies() {
        let open = Self.request(Self.get, endsStream: false)
        #expect(open?.contains("Transfer-Encoding: chunked\r\n") == true)
        let counted = Self.request(Self.get + [("content-length", "3")], endsStream: false)
        #expect(counted?.contains("content-length: 3\r\n") == true)
        #expect(counted?.contains("chunked") == false)
    }

    @Test("a WebSocket opens as an upgrade with a key of its own")
    func webSocket() {
        let head = Self.request(
            [
                (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
                (":authority", "a.example"), (":path", "/chat"), ("sec-websocket-version", "13"),
            ], endsStream: false)
        #expect(head?.hasPrefix("GET /chat HTTP/1.1\r\nHost: a.example\r\n") == true)
        #expect(
            head?.hasSuffix(
                "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                    + "Sec-WebSocket-Key: AAAAAAAAAAEAAAAAAAAAAg==\r\n\r\n") == true)
    }

    static let refused: [(String, Fields)] = [
        ("a new line in a value", get + [("a", "b\r\nx-gateway-tier: enterprise")]),
        (
            "a new line in a path",
            [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/\r\n")]
        ),
        (
            "a space in a path",
            [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/ HTTP/1.1")]
        ),
        (
            "a space in a method",
            [(":method", "GET /"), (":scheme", "https"), (":authority", "a"), (":path", "/")]
        ),
        ("NUL in a value", get + [("a", "b\0c")]),
        ("a colon in a name", get + [("a:b", "c")]),
        ("a capital in a name", get + [("Accept", "c")]),
        ("an empty name", get + [("", "c")]),
        ("a blank in front of a value", get + [("a", " b")]),
        ("a blank behind a value", get + [("a", "b\t")]),
        ("connection", get + [("connection", "close")]),
        ("transfer-encoding", get + [("transfer-encoding", "chunked")]),
        ("upgrade", get + [("upgrade", "h2c")]),
        ("keep-alive", get + [("keep-alive", "timeout=5")]),
        ("proxy-connection", get + [("proxy-connection", "close")]),
        ("te other than trailers", get + [("te", "gzip")]),
        ("two lengths", get + [("content-length", "1"), ("content-length", "1")]),
        ("a length that is none", get + [("content-length", "+1")]),
        ("a length without a body", get + [("content-length", "1")]),
        ("an empty host", get + [("host", "")]),
        ("an empty authority", [get[0], get[1], (":authority", ""), get[3]]),
        ("a second path", get + [(":path", "/other")]),
        ("a pseudo-header field behind others", [get[0], get[1], get[2], ("a", "b"), get[3]]),
        ("an unknown pseudo-header field", get + [(":who", "me")]),
        ("a response's pseudo-header field", get + [(":status", "200")]),
        ("authority and host that differ", get + [("host", "b.example")]),
        ("two hosts", get + [("host", "a.example"), ("host", "a.example")]),
        ("neither authority nor host", [get[0], get[1], get[3]]),
        ("no path", [get[0], get[1], get[2]]),
        ("an empty path", [get[0], get[1], get[2], (":path", "")]),
        ("an absolute path", [get[0], get[1], get[2], (":path", "https://a.example/x")]),
        ("an asterisk for GET", [get[0], get[1], get[2], (":path", "*")]),
        ("no scheme", [get[0], get[2], get[3]]),
        ("a scheme of another kind", [get[0], (":scheme", "ftp"), get[2], get[3]]),
        ("no method", [get[1], get[2], get[3]]),
        ("CONNECT with a path", [(":method", "CONNECT"), get[1], get[2], get[3]]),
        ("a protocol without CONNECT", get + [(":protocol", "websocket")]),
        ("too many fields", get + (0..<9).map { ("f\($0)", "v") }),
        ("too many bytes", get + [("a", String(repeating: "b", count: 4_097))]),
    ]

    @Test("a list with two readings becomes no request", arguments: refused.indices)
    func refusals(_ index: Int) {
        let (why, fields) = Self.refused[index]
        #expect(Self.request(fields) == nil, "\(why)")
    }

    @Test("no tunnel without an authority, and none that announces a length")
    func tunnels() {
        let tunnel: Fields = [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/chat"),
        ]
        #expect(Self.request(tunnel + [("host", "a.example")], endsStream: false) == nil)
        let whole = tunnel + [(":authority", "a.example")]
        #expect(Self.request(whole, endsStream: false) != nil)
        #expect(Self.request(whole + [("content-length", "0")], endsStream: false) == nil)
        #expect(Self.request(whole, endsStream: true) == nil)
    }

    @Test(
        "a head does not pass for trailers",
        arguments: [("x-sum", true), ("host", true), (":path", false), (":status", false)])
    func trailers(_ name: String, _ isOne: Bool) {
        var block = HeaderBlock(bytesMax: 4_096, fieldsMax: 8)
        block.begin()
        block.add(Array(name.utf8).span, Array("1".utf8).span)
        #expect(block.isTrailerSection == isOne)
    }

    @Test("authority and host that agree become one Host")
    func agreeingHosts() {
        let head = Self.request(Self.get + [("host", "A.example")])
        #expect(head == "GET /x?y HTTP/1.1\r\nHost: a.example\r\n\r\n")
    }
}
