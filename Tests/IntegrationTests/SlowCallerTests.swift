import Glibc
import Synchronization
import Testing

/// Callers and upstreams that take their time: every one is let go in time, and nobody else waits for them.
@Suite("Slow callers", .serialized)
struct SlowCallerTests {
    /// One way to be slow. The closure goes on until the gateway has had enough.
    struct Kind: Sendable {
        let name: String
        /// What the caller must have been told before the end; empty for nothing.
        var told = ""
        let play: @Sendable (Gateway) throws -> String
    }

    private static let manyBytes = 20_000

    /// A caller with its handshake done.
    private static func open(_ gateway: Gateway, receiveBytes: Int32 = 0) throws -> WireCaller {
        let caller = try WireCaller(port: gateway.httpsPort, receiveBytes: receiveBytes)
        try caller.shakeHands()
        return caller
    }

    private static func isLetGo(_ caller: WireCaller) throws {
        guard caller.isOver(within: 8_000) else { throw HarnessError("never let go") }
    }

    private static func kind(
        _ name: String, told: String = "", _ play: @escaping @Sendable (WireCaller, Gateway) throws -> Void
    ) -> Kind {
        Kind(name: name, told: told) { gateway in
            let caller = try open(gateway)
            try play(caller, gateway)
            if told.isEmpty {
                try isLetGo(caller)
                return ""
            }
            return caller.rest(within: 8)
        }
    }

    private static func raw(
        _ name: String, _ play: @escaping @Sendable (WireCaller) throws -> Void
    ) -> Kind {
        Kind(name: name) { gateway in
            let caller = try WireCaller(port: gateway.httpsPort)
            try play(caller)
            try isLetGo(caller)
            return ""
        }
    }

    private static let handshakes = [
        raw("a connection without a byte") { _ in },
        raw("a handshake of one byte") { try $0.send([0x16]) },
        raw("a handshake that drips") { $0.drip($0.hello()) },
        raw("a handshake that stops in the middle") { try $0.send(Array($0.hello().dropLast(9))) },
        raw("a handshake without an end") { try $0.send($0.hello()) },
        raw("a handshake whose end drips") { caller in
            try caller.send(caller.hello())
            caller.drip(try caller.finish(), every: 40)
        },
        raw("plain HTTP that drips on the TLS port") { caller in
            caller.drip("GET / HTTP/1.1\r\nHost: a\r\nX-A: \(String(repeating: "a", count: 900))".utf8)
        },
    ]

    private static let heads = [
        kind("silence after the handshake") { _, _ in },
        kind("a record that drips") { caller, _ in caller.drip(caller.seal(Gateway.request())) },
        kind("a head that stops", told: "408") { caller, _ in try caller.say("GET /api/x HTTP/1.1\r\nHo") },
        kind("a head that drips", told: "408") { caller, _ in
            caller.drip(records: Gateway.request().map(String.init) + Array(repeating: "a", count: manyBytes))
        },
        kind("a head of ever more fields", told: "408") { caller, _ in
            try caller.say("GET /api/x HTTP/1.1\r\nHost: a\r\n")
            caller.drip(records: (0..<manyBytes).map { "X-\($0): 1\r\n" }, every: 30)
        },
        kind("empty lines for ever") { caller, _ in
            caller.drip(records: repeatElement("\r\n", count: manyBytes))
        },
        kind("half an empty line", told: "408") { caller, _ in try caller.say("\r") },
        kind("idleness after an answer", told: "200") { caller, _ in try caller.say(Gateway.request()) },
    ]

    private static func post(_ fields: String) -> String { Gateway.request(method: "POST", fields: fields) }

    private static let bodies = [
        kind("a body that never comes", told: "408") { caller, _ in
            try caller.say(post("Content-Length: 100\r\n"))
        },
        kind("a body that waits for 100", told: "408") { caller, _ in
            try caller.say(post("Content-Length: 100\r\nExpect: 100-continue\r\n"))
        },
        kind("a body that drips", told: "408") { caller, _ in
            try caller.say(post("Content-Length: \(manyBytes)\r\n"))
            caller.drip(records: repeatElement("x", count: manyBytes))
        },
        kind("a body in a record that drips", told: "408") { caller, _ in
            try caller.say(post("Content-Length: 9000\r\n"))
            caller.drip(caller.seal(String(repeating: "x", count: 9_000)))
        },
        kind("chunks that drip", told: "408") { caller, _ in
            try caller.say(post("Transfer-Encoding: chunked\r\n"))
            caller.drip(records: repeatElement("1\r\nx\r\n", count: manyBytes), every: 100)
        },
        kind("a chunk size that drips", told: "408") { caller, _ in
            try caller.say(post("Transfer-Encoding: chunked\r\n"))
            caller.drip(records: repeatElement("0", count: manyBytes))
        },
        kind("a chunk extension that drips", told: "408") { caller, _ in
            try caller.say(post("Transfer-Encoding: chunked\r\n") + "1;")
            caller.drip(records: repeatElement("a", count: manyBytes))
        },
        kind("trailers that drip", told: "408") { caller, _ in
            try caller.say(post("Transfer-Encoding: chunked\r\n") + "0\r\n")
            caller.drip(records: repeatElement("X: 1\r\n", count: manyBytes), every: 100)
        },
        kind("a refused body that never comes", told: "401") { caller, _ in
            try caller.say(Gateway.request(key: nil, method: "POST", fields: "Content-Length: 100\r\n"))
        },
        kind("a refused body that drips", told: "401") { caller, _ in
            try caller.say(Gateway.request(key: nil, method: "POST", fields: "Content-Length: 20000\r\n"))
            caller.drip(records: repeatElement("x", count: manyBytes))
        },
    ]

    private static let readers = [
        Kind(name: "an answer that nobody reads") { gateway in
            let caller = try open(gateway, receiveBytes: 4_096)
            try caller.say(Gateway.request("/api/large"))
            try waitUntilIdle(gateway, "large")
            return ""
        },
        Kind(name: "an answer that is sipped") { gateway in
            let caller = try open(gateway, receiveBytes: 4_096)
            try caller.say(Gateway.request("/api/large"))
            try Deadline(seconds: 12 * patience).wait("the answer to be given up") {
                // A few bytes now and then keep the window moving.
                var byte: UInt8 = 0
                unsafe recv(caller.connection.descriptor, &byte, 1, 0)
                poll(nil, 0, 100)
                return try gateway.metric("gateway_connections{state=\"active\"}") == 0
            }
            return ""
        },
        Kind(name: "pipelined requests whose answers nobody reads") { gateway in
            let caller = try open(gateway, receiveBytes: 4_096)
            try? caller.say(String(repeating: Gateway.request("/api/large"), count: 50))
            try waitUntilIdle(gateway, "large")
            return ""
        },
        Kind(name: "a goodbye that is not answered") { gateway in
            let caller = try open(gateway)
            try caller.say(Gateway.request(fields: "Connection: close\r\n"))
            try isLetGo(caller)
            return ""
        },
        Kind(name: "half a head and no more to come") { gateway in
            let caller = try open(gateway)
            try caller.say("GET /api/x HTTP/1.1\r\n")
            caller.connection.shutdownWrite()
            try isLetGo(caller)
            return ""
        },
    ]

    /// Sixteen million bytes are sealed slowly by a test that is built with a sanitizer.
    private static let patience: Double = Gateway.isSanitized ? 4 : 1

    /// The connection of an unread answer ends unseen by its caller: the upstream's does with it.
    private static func waitUntilIdle(_ gateway: Gateway, _ what: String) throws {
        try Deadline(seconds: 12 * patience).wait("the \(what) answers to be given up") {
            try gateway.metric("gateway_connections{state=\"active\"}") == 0
        }
    }

    private static func upstream(
        _ name: String, _ told: String, _ target: String, method: String = "GET", body: Int = 0
    ) -> Kind {
        kind("an upstream that \(name)", told: told) { caller, _ in
            let fields = body > 0 ? "Content-Length: \(body)\r\n" : ""
            try caller.say(Gateway.request("/api/\(target)", method: method, fields: fields))
            for _ in 0..<body / 65_536 { try? caller.say(String(repeating: "x", count: 65_536)) }
        }
    }

    private static let upstreams = [
        upstream("never answers", "504", "silent"), upstream("drips its status line", "504", "dripline"),
        upstream("drips fields", "504", "dripfields"), upstream("stops in its body", "200", "stop"),
        upstream("drips a chunk size", "200", "dripsize"), upstream("drips trailers", "200", "driptrailers"),
        upstream("sends interim answers only", "504", "interim"),
        upstream("takes no body", "504", "deaf", method: "POST", body: 16 << 20),
    ]

    static let kinds = handshakes + heads + bodies + readers + upstreams

    @Test("every slow caller and upstream ends in time, all at once, and a good caller does not wait")
    func slow() throws {
        let upstream = try Upstream(Self.play)
        let gateway = try Gateway(
            Setup(upstream).with {
                $0.sections = "limits: { body: 64MiB }\n"
                $0.timeouts =
                    "drain_delay: 0s, handshake: 600ms, head: 600ms, body: \(Int(800 * Self.patience))ms, "
                    + "body_rate: 1KiB, idle: 900ms"
                $0.upstream = "response_timeout: 900ms"
            })
        let outcomes = Mutex<[String: String]>([:])
        let threads = Self.kinds.map { kind in
            TestThread {
                let start = ContinuousClock.now
                let problem: String
                do {
                    let told = try kind.play(gateway)
                    let isTold = kind.told.isEmpty || told.contains(" \(kind.told) ")
                    problem = isTold ? "" : "told: \(told.prefix(200))"
                } catch {
                    problem = "\(error)"
                }
                let took = start.duration(to: .now)
                outcomes.withLock {
                    $0[kind.name] = problem + (took > .seconds(20 * Self.patience) ? " after \(took)" : "")
                }
            }
        }
        var worst = Duration.zero
        for _ in 0..<20 {
            let start = ContinuousClock.now
            #expect(try gateway.call().status == 200)
            worst = max(worst, start.duration(to: .now))
        }
        for thread in threads { try thread.join(within: 40 * Self.patience) }
        #expect(worst < .seconds(3))
        for kind in Self.kinds {
            #expect(outcomes.withLock { $0[kind.name] } == "", "\(kind.name)")
        }
        try Deadline(seconds: 10).wait("no connection to be left") {
            let active = try gateway.metric("gateway_connections{state=\"active\"}")
            let idle = try gateway.metric("gateway_connections{state=\"idle\"}")
            return active == 0 && idle == 0
        }
    }

    @Test("a record that drips has the time of a head, not that of an idle connection")
    func drippedRecord() throws {
        let gateway = try Gateway(Setup(try Upstream()).with { $0.timeouts = "drain_delay: 0s, head: 500ms" })
        let caller = try Self.open(gateway)
        try caller.say(Gateway.request())
        #expect(!caller.isOver(within: 700), "an idle connection is kept")
        let start = ContinuousClock.now
        caller.drip(caller.seal(Gateway.request()), every: 50)
        #expect(start.duration(to: .now) < .seconds(5))
        #expect(caller.isOver(within: 100))
    }

    /// Upstreams that take their time, by target.
    private static func play(_ exchange: borrowing UpstreamExchange) throws {
        let target = exchange.request.target
        if target == "/api/deaf" {
            exchange.recordHead()
            exchange.waitForEnd()
            return
        }
        try exchange.receiveBody()
        switch target {
        case "/api/large":
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: \(64 << 20)\r\n\r\n")
            for _ in 0..<64 { try exchange.send([UInt8](repeating: 0x78, count: 1 << 20)) }
        case "/api/silent": exchange.waitForEnd()
        case "/api/dripline": try exchange.drip("HTTP/1.1 200 \(String(repeating: "a", count: 500))")
        case "/api/dripfields":
            try exchange.drip("HTTP/1.1 200 OK\r\n" + String(repeating: "A: 1\r\n", count: 99))
        case "/api/stop":
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
            exchange.waitForEnd()
        case "/api/dripsize":
            try exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
            try exchange.drip(String(repeating: "0", count: 500))
        case "/api/driptrailers":
            try exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
            try exchange.drip(String(repeating: "A: 1\r\n", count: 90))
        case "/api/interim":
            for _ in 0..<3 {
                try exchange.send("HTTP/1.1 102 Processing\r\n\r\n")
                poll(nil, 0, 300)
            }
            exchange.waitForEnd()
        default: try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        }
    }
}

extension UpstreamExchange {
    /// Holds the connection until the gateway ends it.
    func waitForEnd() {
        _ = try? receiveRest()
        close()
    }

    /// Sends a text byte by byte until the gateway has had enough.
    func drip(_ text: String) throws {
        for byte in text.utf8 {
            try send([byte])
            poll(nil, 0, 20)
        }
        close()
    }
}
