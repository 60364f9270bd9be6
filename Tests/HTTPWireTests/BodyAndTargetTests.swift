import HTTPWire
import Reactor
import Testing

@Suite("Chunks")
struct ChunkTests {
    /// Decodes a stream given in pieces; nil when it is invalid.
    static func decode(_ pieces: [[UInt8]]) -> (body: [UInt8], trailers: [String], rest: Int)? {
        var decoder = ChunkDecoder()
        var body: [UInt8] = []
        var trailers: [String] = []
        var pending: [UInt8] = []
        for piece in pieces {
            pending += piece
            var offset = 0
            reading: while true {
                switch decoder.next(pending.span, &offset) {
                case .data(let range): body += pending[range]
                case .trailer(let field):
                    trailers.append(String(decoding: pending[field.name], as: UTF8.self))
                case .end: return (body, trailers, pending.count - offset)
                case .needMore: break reading
                case .invalid: return nil
                }
            }
            pending.removeFirst(offset)
        }
        return nil
    }

    static let good = [
        ("5\r\nhello\r\n0\r\n\r\n", "hello", 0), ("0\r\n\r\n", "", 0),
        ("A;x=\"a\\\"b\"\r\n0123456789\r\n0\r\nX-T: 1\r\nHost: no\r\n\r\nNEXT", "0123456789", 4),
        ("2 ; a = b ;c\t; d=\"e\\\"f\"\r\nab\r\n0;x\r\n\r\n", "ab", 0),
        (String(repeating: "0", count: 400) + "1\r\na\r\n000\r\n\r\n", "a", 0),
        ("00002\r\nab\r\n1;e\r\nc\r\n0\r\n\r\n", "abc", 0),
    ]

    @Test("chunks are joined however they arrive", arguments: good)
    func joins(_ text: String, _ body: String, _ rest: Int) throws {
        let bytes = Array(text.utf8)
        for cut in 0...bytes.count {
            let decoded = try #require(Self.decode([Array(bytes[..<cut]), Array(bytes[cut...])]))
            #expect(String(decoding: decoded.body, as: UTF8.self) == body)
            #expect(!decoded.trailers.contains("Host"))
        }
        let single = try #require(Self.decode(bytes.map { [$0] }))
        #expect(String(decoding: single.body, as: UTF8.self) == body)
        #expect(try #require(Self.decode([bytes])).rest == rest)
    }

    @Test(
        "a bad chunk is refused",
        arguments: [
            "x\r\n", "\r\n", "5\nhello\r\n", "5\r\nhelloX\r\n0\r\n\r\n", "-1\r\n", "FFFFFFFFFFFFFFFFF\r\n",
            "5 \r\nhello\r\n", "5;\r\nhello\r\n", "5;=a\r\nhello\r\n", "5;a=\r\nhello\r\n",
            "5;a b\r\nhello\r\n",
            "5;a=\"b\r\nhello\r\n", "5;a=\"b\"c\r\nhello\r\n", "5;a=b \r\nhello\r\n", "5;a\nhello\r\n",
            "5;;a\r\nhello\r\n", "5;a=\"b\u{0}\"\r\nhello\r\n", "1000000000000000\r\n",
            "1\r\na\n0\r\n\r\n", "0\r\nbad trailer\r\n\r\n", "0x5\r\nhello\r\n",
        ])
    func refuses(_ text: String) {
        #expect(Self.decode([Array(text.utf8)]) == nil)
    }

    @Test("extensions and trailers without end are refused")
    func floods() {
        let extensions = "1;" + String(repeating: "a", count: 5_000) + "\r\na\r\n0\r\n\r\n"
        #expect(Self.decode([Array(extensions.utf8)]) == nil)
        let many = String(repeating: "1;" + String(repeating: "a", count: 100) + "\r\na\r\n", count: 300)
        #expect(Self.decode([Array((many + "0\r\n\r\n").utf8)]) == nil)
        let signed = "10000;chunk-signature=" + String(repeating: "a", count: 64) + "\r\n"
        let large = signed + String(repeating: "a", count: 0x10000) + "\r\n"
        let longBody = String(repeating: large, count: 64) + "0\r\n\r\n"
        #expect(Self.decode([Array(longBody.utf8)])?.body.count == 64 << 16)
        let trailers = "0\r\n" + (0..<120).map { "X-\($0): 1\r\n" }.joined() + "\r\n"
        #expect(Self.decode([Array(trailers.utf8)]) == nil)
    }
}

@Suite("Targets and credentials")
struct TargetTests {
    static func normalise(_ text: String) -> String? {
        let bytes = Array(text.utf8)
        var block = Block.allocate(capacity: 1_024)
        defer { block.deallocate() }
        var writer = ByteWriter(block)
        if TargetNormaliser.normalise(bytes.span, 0..<bytes.count, into: &writer) != nil { return nil }
        block.commit(writer)
        var copy: [UInt8] = []
        let result = block.readable
        for index in 0..<result.count { copy.append(result[index]) }
        return String(decoding: copy, as: UTF8.self)
    }

    @Test(
        "a path has one form",
        arguments: [
            ("/", "/"), ("", "/"), ("/a/./b", "/a/b"), ("/a/../b", "/b"), ("/a/b/..", "/a/"), ("/../..", "/"),
            ("//a///b", "/a/b"), ("/%61%7e%2e", "/a~."), ("/a/%2e%2e/b", "/b"), ("/%c3%a9", "/%C3%A9"),
            ("/a/", "/a/"), ("/a%20b", "/a%20b"),
        ])
    func oneForm(_ text: String, _ expected: String) {
        #expect(Self.normalise(text) == expected)
        #expect(Self.normalise(expected) == expected)
    }

    @Test(
        "what servers read in different ways is refused",
        arguments: ["/a%2fb", "/a%2Fb", "/a%5Cb", "/%00", "/%", "/%4", "/%zz", "/..;/a"])
    func refused(_ text: String) { #expect(Self.normalise(text) == nil) }

    @Test("no dot segment survives, whatever is thrown at it")
    func noDotSegment() {
        let parts = ["/", ".", "..", "%2e", "a", "//", "%2E%2e", ";", "%7E"]
        var random = FastRandom(seed: 11)
        for _ in 0..<20_000 {
            let text =
                "/"
                + (0..<Int.random(in: 0..<9, using: &random)).map { _ in
                    parts[Int.random(in: 0..<parts.count, using: &random)]
                }.joined()
            guard let path = Self.normalise(text) else { continue }
            let segments = path.split(separator: "/", omittingEmptySubsequences: true)
            #expect(!segments.contains(".") && !segments.contains(".."), "\(text) became \(path)")
            #expect(!path.contains("//"))
        }
    }

    @Test(
        "a credential is one token68 behind Bearer",
        arguments: [
            ("Bearer abc", "abc"), ("bEARER   a-._~+/9==", "a-._~+/9=="), ("Bearer", nil), ("Bearer ", nil),
            ("Basic abc", nil), ("Bearer a b", nil), ("Bearer a,b", nil), ("Bearerabc", nil),
            ("Bearer " + String(repeating: "a", count: 256), String(repeating: "a", count: 256)),
            ("Bearer " + String(repeating: "a", count: 257), nil),
        ] as [(String, String?)])
    func credential(_ text: String, _ token: String?) {
        let bytes = Array(text.utf8)
        switch BearerCredential.read(bytes.span, 0..<bytes.count) {
        case .token(let range): #expect(String(decoding: bytes[range], as: UTF8.self) == token)
        case .malformed: #expect(token == nil)
        }
    }
}

@Suite("Response parser")
struct ResponseParserTests {
    static func parse(_ text: String, _ method: Method = .get) -> (Int, ResponseFraming, Bool)? {
        var head = ResponseHead()
        let limits = HeadLimits(headBytes: 4_096, fields: 64, targetBytes: 0)
        let bytes = Array(text.utf8)
        guard case .complete = ResponseParser.parse(bytes.span, method: method, limits: limits, into: &head)
        else {
            return nil
        }
        return (head.status, head.framing, head.keepAlive)
    }

    @Test("framing follows status, method and fields")
    func framing() throws {
        #expect(
            try #require(Self.parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")) == (
                200, .length(5), true
            ))
        #expect(try #require(Self.parse("HTTP/1.1 200\r\n\r\n")).1 == .untilClose)
        #expect(
            try #require(Self.parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")).1 == .chunked)
        #expect(try #require(Self.parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", .head)).1 == .none)
        #expect(try #require(Self.parse("HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n")).1 == .none)
        #expect(try #require(Self.parse("HTTP/1.1 204 X\r\n\r\n")).1 == .none)
        #expect(try #require(Self.parse("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n")).2 == false)
        #expect(
            try #require(Self.parse("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")).2
                == false)
    }

    @Test(
        "nonsense is refused",
        arguments: [
            "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 099 X\r\n\r\n",
            "HTTP/1.1 200 O\u{0}K\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: a\r\n\r\n", "HTTP/1.1 200 OK\r\nA: 1\n\r\n", "<html>",
        ])
    func nonsense(_ text: String) { #expect(Self.parse(text) == nil) }
}
