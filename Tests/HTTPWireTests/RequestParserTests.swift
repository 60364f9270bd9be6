import HTTPWire
import Reactor
import Testing

/// What the parser takes in, and that it never changes its mind.
@Suite("Request parser")
struct RequestParserTests {
    enum Outcome: Equatable {
        case complete(Int)
        case incomplete
        case refused(Int)
    }

    static let limits = HeadLimits(headBytes: 2_048, fields: 12, targetBytes: 256)

    static func parse(_ bytes: [UInt8], _ head: inout RequestHead) -> Outcome {
        switch RequestParser.parse(bytes.span, limits: limits, into: &head) {
        case .complete(let count): return .complete(count)
        case .incomplete: return .incomplete
        case .refused(let refusal): return .refused(refusal.status)
        }
    }

    static let accepted = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\nGET /a?b=c HTTP/1.1\r\nhost:a:80\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n",
        "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
        "GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: A:80\r\n\r\n", "GET https://a:/ HTTP/1.1\r\nHost: a:443\r\n\r\n",
        "GET http://a/ HTTP/1.0\r\n\r\n", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0000000000000000000007\r\n\r\n",
        "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
        "A!#$%&'*+-.^_`|~9z / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~9z: x\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n", "PURGE / HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Tab:\ta\t\r\nX-High: \u{e9}\r\n\r\n",
    ]

    static let refused = [
        "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\tfold\r\n\r\n", "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 12, 12\r\n\r\n",
        "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
        "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: x\r\n\r\n",
        "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/11\r\nHost: a\r\n\r\n", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\u{0}: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n",
    ]

    @Test("a proper head is taken whole", arguments: accepted)
    func accepts(_ text: String) {
        var head = RequestHead()
        let bytes = Array(text.utf8)
        #expect(Self.parse(bytes, &head) == .complete(bytes.count))
        #expect(Self.parse(bytes + Array("GET / more".utf8), &head) == .complete(bytes.count))
    }

    @Test("an ambiguous head is refused", arguments: refused)
    func refuses(_ text: String) {
        var head = RequestHead()
        guard case .refused = Self.parse(Array(text.utf8), &head) else {
            Issue.record("taken: \(text)")
            return
        }
    }

    @Test("a head cut anywhere never gets another answer", arguments: accepted + refused)
    func splits(_ text: String) {
        var head = RequestHead()
        let bytes = Array(text.utf8)
        let whole = Self.parse(bytes, &head)
        var verdict: Outcome?
        for count in 0..<bytes.count {
            let outcome = Self.parse(Array(bytes.prefix(count)), &head)
            if let verdict {
                #expect(outcome == verdict, "changed its mind at \(count)")
            } else if outcome != .incomplete {
                #expect(outcome == whole, "another answer at \(count)")
                verdict = outcome
            }
        }
    }

    @Test(
        "a host is one by its grammar",
        arguments: [
            "a", "A.b-c_d~e", "a!$&'()*+;=b", "a:", "a:0", "a:65535", "a:00080", "%C3%A9.test", "%61",
            "1.2.3.4", "999.1", "[::]", "[::1]:8443", "[1:2:3:4:5:6:7:8]", "[1::8]", "[1:2:3:4:5:6:7::]",
            "[::2:3:4:5:6:7:8]", "[::ffff:192.0.2.1]", "[1:2:3:4:5:6:1.2.3.4]", "[v1.a:b]", "[vF.x]",
        ])
    func host(_ text: String) {
        let bytes = Array(text.utf8)
        let isValid = HostName.isValid(bytes.span, 0..<bytes.count)
        #expect(isValid)
    }

    @Test(
        "what is no host, or could be taken for two, is none",
        arguments: [
            "", ":80", "a:65536", "a:99999999999999999999", "a:8a", "a:-1", "a b", "a,b", "a/b", "a?b", "a#b",
            "a@b", "u:p@a", "a\\b", "a\"b", "a<b", "a%", "a%4", "a%zz", "a%2Fb", "a%00", "a%0d", "a%40",
            "a%2C",
            "a%25", "[", "]", "[]", "[::1", "::1", "[:]", "[:::]", "[1:2:3:4:5:6:7]", "[1:2:3:4:5:6:7:8:9]",
            "[1::2::3]", "[::12345]", "[::g]", "[1.2.3.4]", "[::1.2.3]", "[::1.2.3.256]", "[::1.2.3.04]",
            "[:1]", "[1:]", "[::1%25eth0]", "[::1]x", "[v.a]", "[v1.]", "[v1]", "a\u{e9}",
        ])
    func noHost(_ text: String) {
        let bytes = Array(text.utf8)
        let isValid = HostName.isValid(bytes.span, 0..<bytes.count)
        #expect(!isValid)
    }

    @Test("random damage is refused or read, and never crashes")
    func damage() {
        var random = FastRandom(seed: 7)
        var head = RequestHead()
        for text in Self.accepted {
            for _ in 0..<2_000 {
                var bytes = Array(text.utf8)
                for _ in 0...Int.random(in: 0..<3, using: &random) {
                    let index = Int.random(in: 0..<bytes.count, using: &random)
                    bytes[index] = UInt8.random(in: 0...255, using: &random)
                }
                if case .complete(let count) = Self.parse(bytes, &head) { #expect(count <= bytes.count) }
            }
        }
    }

    @Test("framing, keep-alive and credentials are what the fields say")
    func facts() {
        var head = RequestHead()
        let text =
            "POST /p/q?r HTTP/1.1\r\nHost: h\r\nConnection: close, X-Own\r\nX-Own: 1\r\n"
            + "Authorization: Bearer t\r\nContent-Length: 7\r\nExpect: 100-continue\r\n"
            + "Content-Type: application/grpc+proto\r\nX-Gateway_Tier: x\r\n\r\n"
        let bytes = Array(text.utf8)
        _ = Self.parse(bytes, &head)
        #expect(head.method == .post && head.body == .length(7) && !head.keepAlive)
        #expect(head.expectsContinue && head.isGRPC && head.authorizationCount == 1)
        #expect(String(decoding: bytes[head.path], as: UTF8.self) == "/p/q")
        #expect(String(decoding: bytes[head.query], as: UTF8.self) == "?r")
        #expect(head.isNominated(2, in: bytes.span) && !head.isNominated(0, in: bytes.span))
        #expect(head.field(head.fieldCount - 1).id == .gatewayIdentity)
    }
}
