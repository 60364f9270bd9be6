import Testing

/// The tests' own tools.
@Suite("Harness")
struct HarnessTests {
    @Test("the tests' SHA-256 agrees with FIPS 180-4")
    func digest() {
        #expect(
            sha256Hexadecimal("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        let long = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"
        #expect(
            sha256Hexadecimal(long) == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
    }

    @Test("the upstream records what it is sent and answers what it is told")
    func upstream() throws {
        let upstream = try Upstream(Upstream.answer("hello"))
        let client = try PlainClient(port: upstream.port)
        try client.send("POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n")
        #expect(try client.response().text == "hello")
        let request = try upstream.latest()
        #expect(request.body == Array("abc".utf8))
        #expect(request.trailers["T"] == "1")
    }

    @Test("a Redis starts and answers")
    func redis() throws {
        let redis = try RedisServer()
        try redis.store("sk_live_x", ["tier": "pro"])
        #expect(try redis.command("HGET", "gateway:key:\(sha256Hexadecimal("sk_live_x"))", "tier") == "pro")
    }
}
