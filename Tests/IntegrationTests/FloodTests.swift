import Glibc
import Synchronization
import Testing

/// Callers that ask for more work than any honest one: each is bounded, and a good caller meanwhile gets its
/// answers.
@Suite("Floods", .serialized)
struct FloodTests {
    struct Kind: Sendable, CustomTestStringConvertible {
        let name: String
        /// One round; a round that throws is over, and the next one begins.
        let round: @Sendable (Gateway) throws -> Void

        var testDescription: String { name }
    }

    private static func open(_ gateway: Gateway) throws -> WireCaller {
        let caller = try WireCaller(port: gateway.httpsPort)
        try caller.shakeHands()
        return caller
    }

    /// A round that says the same thing on one connection until the gateway ends it.
    private static func saying(
        _ name: String, after first: String = "", _ text: String, times: Int = 400
    ) -> Kind {
        Kind(name: name) { gateway in
            let caller = try open(gateway)
            if !first.isEmpty { try caller.say(first) }
            let records = (0..<times / 20).map { _ in caller.seal(String(repeating: text, count: 20)) }
            for record in records {
                try caller.send(record)
                if caller.isOver(within: 0) { return }
            }
        }
    }

    private static let chunked = Gateway.request(method: "POST", fields: "Transfer-Encoding: chunked\r\n")
    private static let long = String(repeating: "a", count: 4_000)

    static let kinds = [
        Kind(name: "connections without a byte") { _ = try TCPConnection(port: $0.httpsPort) },
        Kind(name: "connections that are reset") { try TCPConnection(port: $0.httpsPort).reset() },
        Kind(name: "handshakes that are left") { gateway in
            let caller = try WireCaller(port: gateway.httpsPort)
            try caller.send(caller.hello())
        },
        Kind(name: "handshakes and no request") { _ = try open($0) },
        Kind(name: "bytes that are no TLS") { gateway in
            let connection = try TCPConnection(port: gateway.httpsPort)
            try connection.stream.write([UInt8](repeating: 0x16, count: 20_000))
            _ = try connection.stream.read(within: 1)
        },
        Kind(name: "records that cannot be read") { gateway in
            let caller = try open(gateway)
            try caller.send([0x17, 3, 3, 0x40, 0] + [UInt8](repeating: 7, count: 0x4000))
            _ = caller.isOver(within: 1_000)
        },
        Kind(name: "plain HTTP on the TLS port") { gateway in
            _ = try PlainClient.exchange(port: gateway.httpsPort, Gateway.request())
        },
        Kind(name: "plain HTTP on the plaintext port") { gateway in
            _ = try PlainClient.exchange(port: gateway.plaintextPort, Gateway.request())
        },
        saying("requests without a key", Gateway.request(key: nil)),
        saying(
            "requests with a key that is none",
            "GET /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk_live_guess\r\n\r\n"),
        saying("pipelined requests", Gateway.request()),
        saying("requests for what is not there", Gateway.request("/nowhere")),
        saying("malformed requests", "GET /api/x HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n"),
        saying("empty lines", "\r\n", times: 20_000),
        saying("fields without end", after: "GET /api/x HTTP/1.1\r\nHost: a\r\n", "X: 1\r\n", times: 4_000),
        saying("a field without end", after: "GET /api/x HTTP/1.1\r\nHost: a\r\nX: ", long),
        saying("a target without end", after: "GET /", long), saying("a method without end", long),
        saying("chunks of one byte", after: chunked, "1\r\nx\r\n", times: 10_000),
        saying("chunk extensions", after: chunked, "1;a=\(long.prefix(300))\r\nx\r\n", times: 2_000),
        saying("a chunk size of zeros", after: chunked, "0000", times: 10_000),
        saying("trailers without end", after: chunked + "0\r\n", "X: 1\r\n", times: 4_000),
        saying("bodies of refused requests", Gateway.request(key: nil, method: "POST", body: "x")),
        saying(
            "expectations", Gateway.request(method: "POST", fields: "Expect: 100-continue\r\n", body: "x")
        ),
        Kind(name: "answers that are not waited for") { gateway in
            let caller = try open(gateway)
            try caller.say(Gateway.request("/api/large"))
            caller.connection.reset()
        },
        Kind(name: "records of one byte") { gateway in
            let caller = try open(gateway)
            try caller.send(Gateway.request().flatMap { caller.seal(String($0)) })
            _ = caller.isOver(within: 5)
        },
    ]

    @Test("a flood costs its sender more than anybody else", arguments: kinds)
    func flood(_ kind: Kind) throws {
        let large = [UInt8](repeating: 0x78, count: 1 << 20)
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            let isLarge = exchange.request.target == "/api/large"
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: \(isLarge ? large.count : 2)\r\n\r\n")
            try exchange.send(isLarge ? large : Array("ok".utf8))
        }
        let gateway = try Gateway(
            Setup(upstream).with { $0.timeouts = "drain_delay: 0s, idle: 1s, handshake: 1s" })
        let isOver = Mutex(false)
        let rounds = Mutex(0)
        let good = try gateway.connect()
        let attackers = (0..<2).map { _ in
            TestThread {
                while !isOver.withLock({ $0 }) {
                    try? kind.round(gateway)
                    rounds.withLock { $0 += 1 }
                }
            }
        }
        defer { isOver.withLock { $0 = true } }
        var worst = Duration.zero
        let end = Deadline(seconds: 0.7)
        while !end.hasPassed {
            let start = ContinuousClock.now
            try good.send(Gateway.request(key: .enterprise))
            #expect(try good.response().status == 200)
            worst = max(worst, start.duration(to: .now))
        }
        isOver.withLock { $0 = true }
        for thread in attackers { try thread.join(within: 20) }
        #expect(rounds.withLock { $0 } > 0)
        #expect(worst < .seconds(1), "\(kind.name): a good caller waited \(worst)")
        // The attackers may have taken longer to end than a good caller may be idle.
        let next = try gateway.connect()
        let memory = try #require(try gateway.metric("process_resident_memory_bytes"))
        #expect(Gateway.isSanitized || memory < Double(128 << 20), "\(kind.name): \(Int(memory) >> 20) MiB")
        // What the flood has left behind goes, and takes nothing along.
        try Deadline(seconds: 8).wait("the flood's connections to be gone") {
            try next.send(Gateway.request(key: .enterprise))
            guard try next.response().status == 200 else { throw HarnessError("refused after the flood") }
            return try gateway.metric("gateway_connections{state=\"idle\"}") ?? 9 <= 1
        }
    }
}
