import Foundation
import Glibc
import Testing

/// Too much of something.
@Suite("Overload", .serialized)
struct OverloadTests {
    @Test("handshakes that do not go on make room for those that do")
    func slowHandshakes() throws {
        let gateway = try Gateway(
            Setup(try Upstream()).with { $0.sections = "limits: { handshakes: 16 }\n" })
        var slow: [PlainClient] = []
        for _ in 0..<100 { slow.append(try PlainClient(port: gateway.httpsPort)) }
        for _ in 0..<5 { #expect(try gateway.call().status == 200) }
        try Deadline(seconds: 5).wait("the evictions") {
            try gateway.metric("gateway_tls_handshakes_evicted_total") ?? 0 >= 80
        }
        // An open connection is none of them, however long it is silent.
        let open = try gateway.connect()
        try open.send(Gateway.request())
        #expect(try open.response().status == 200)
        for _ in 0..<40 { slow.append(try PlainClient(port: gateway.httpsPort)) }
        try open.send(Gateway.request())
        #expect(try open.response().status == 200)
    }

    @Test("a handshake that comes in pieces is taken, and half of one takes no memory to speak of")
    func handshakePieces() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        for cut in [1, 4, 5, 6, 100, -1] {
            let caller = try WireCaller(port: gateway.httpsPort)
            let hello = caller.hello()
            let first = cut > 0 ? cut : hello.count + cut
            try caller.send(Array(hello[..<first]))
            #expect(!caller.isOver(within: 20))
            try caller.send(Array(hello[first...]))
            try caller.send(caller.finish())
            try caller.say(Gateway.request(fields: "Connection: close\r\n"))
            #expect(caller.rest(within: 5).contains("200 OK"), "cut at \(first)")
        }
        let dripping = try WireCaller(port: gateway.httpsPort)
        dripping.drip(dripping.hello(), every: 1)
        try dripping.send(dripping.finish())
        try dripping.say(Gateway.request(fields: "Connection: close\r\n"))
        #expect(dripping.rest(within: 5).contains("200 OK"))

        let hello = try WireCaller(port: gateway.httpsPort).hello()
        let before = try gateway.metric("process_resident_memory_bytes") ?? 0
        let halves = try (0..<400).map { _ in try TCPConnection(port: gateway.httpsPort) }
        for caller in halves { try caller.stream.write(Array(hello[..<(hello.count / 2)])) }
        for _ in 0..<5 { #expect(try gateway.call().status == 200) }
        // A session each would be 28 MB.
        let after = try #require(try gateway.metric("process_resident_memory_bytes"))
        #expect(Gateway.isSanitized || after < before + 10e6)
    }

    @Test("a call waits for a connection to be free; one that waits too long, or too many, get 503")
    func queue() throws {
        let gate = Collected<Int>()
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            if exchange.request.target.hasPrefix("/api/slow") {
                try Deadline(seconds: 20).wait("the gate") {
                    gate.values.contains(exchange.request.target.hasSuffix("1") ? 1 : 2)
                }
            }
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        }
        let gateway = try Gateway(
            Setup(upstream).with { $0.upstream = "connections: 1\nqueue: 1\nqueue_timeout: 500ms" })
        let first = try gateway.connect()
        try first.send(Gateway.request("/api/slow1"))
        try Deadline(seconds: 5).wait("the call") { !upstream.requests.isEmpty }
        let second = try gateway.connect()
        try second.send(Gateway.request("/api/second"))
        try Deadline(seconds: 5).wait("the queue") {
            try gateway.metric("gateway_upstream_queued_total") == 1
        }
        let third = try gateway.call("/api/third")
        #expect(third.status == 503)
        #expect(third["Retry-After"] == "1")
        gate.append(contentsOf: [1])
        #expect(try first.response().status == 200)
        #expect(try second.response().status == 200)
        // Nobody ends in time.
        try first.send(Gateway.request("/api/slow2"))
        try Deadline(seconds: 5).wait("the call") { upstream.requests.count == 3 }
        try second.send(Gateway.request("/api/late"))
        let late = try second.response()
        #expect(late.status == 503)
        #expect(late["Retry-After"] == "1")
        gate.append(contentsOf: [2])
        #expect(try first.response().status == 200)
        #expect(try gateway.metric("gateway_upstream_overflows_total") == 2)
    }

    @Test("while bodies that nobody takes fill the memory for them, those that somebody takes pass")
    func heldBodies() throws {
        let held = try Upstream { exchange in
            exchange.recordHead()
            exchange.waitForEnd()
        }
        let free = try Upstream()
        let gateway = try Gateway(
            Setup(held).with {
                $0.upstream = "connections: 1\nqueue: 8192\nqueue_timeout: 60s"
                $0.moreUpstreams = "  free: { endpoints: [\"\(free.endpoint)\"] }\n"
                $0.routes = ["{ path: /held/**, upstream: main }", "{ path: /free/**, upstream: free }"]
                $0.sections = "limits: { body: 64MiB }\n"
                $0.timeouts = "drain_delay: 0s, body: 8s"
            })
        let folder = try TemporaryFolder()
        let address = "https://localhost:\(gateway.httpsPort)"
        let credential = "authorization: Bearer \(TestKey.enterprise.secret)"
        let load = try ChildProcess(
            "h2load",
            [
                "-c", "40", "-m", "128", "-n", "5120", "-H", credential, "-d",
                try folder.write("body", String(repeating: "x", count: 65_000)), address + "/held/x",
            ])
        // 256 MiB of bodies, from where on their connections' windows stay shut.
        var before = 0.0
        try Deadline(seconds: 30).wait("the bodies") {
            poll(nil, 0, 400)
            let now = try gateway.metric("process_resident_memory_bytes") ?? 0
            defer { before = now }
            return now > Double(256 << 20) && now == before
        }
        let large = try folder.write("large", String(repeating: "y", count: 8_000_000))
        let answer = try Curl.get(
            address + "/free/x", key: TestKey.enterprise.secret, ["--http2", "--data-binary", "@\(large)"])
        #expect(answer.status == 200)
        #expect(free.requests.last?.body.count == 8_000_000)
        #expect(!held.requests.isEmpty)
        load.end()
    }

    @Test(
        "memory of callers that are gone keeps nobody out",
        .disabled(if: Gateway.isSanitized, "a sanitizer keeps what is freed"))
    func memoryGivenBack() throws {
        let gate = Collected<Int>()
        let gateway = try Gateway(
            Setup(
                try Upstream { exchange in
                    try exchange.receiveBody()
                    if exchange.request.target == "/api/held" {
                        try Deadline(seconds: 20).wait("the end") { !gate.values.isEmpty }
                    }
                    try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                }))
        let resident = { Int(try gateway.metric("process_resident_memory_bytes") ?? 0) }
        let before = try resident()
        var callers = try (0..<400).map { _ in
            let caller = try WireCaller(port: gateway.httpsPort)
            try caller.shakeHands()
            return caller
        }
        let taken = try resident() - before
        #expect(taken > 4 << 20, "\(taken)")
        // One of the last stays, and with it whatever stands before it in the allocator.
        try callers[390].say(Gateway.request("/api/held"))
        callers = [callers[390]]
        try Deadline(seconds: 5).wait("the callers to be gone") {
            try gateway.metric("gateway_connections{state=\"idle\"}") == 0
        }
        let watermark = (before + taken / 2) / 1_024
        try gateway.rewriteConfiguration { $0 + "limits: { memory: \(watermark)KiB }\n" }
        try gateway.reload(to: 2)
        // Longer than it takes to weigh the process twice.
        poll(nil, 0, 2_500)
        #expect(try gateway.call().status == 200)
        gate.append(contentsOf: [1])
        #expect(callers[0].rest(within: 1).hasSuffix("ok"))
    }

    @Test(
        "over the memory watermark open calls finish, nobody new gets in, idle ones go; below it all is well")
    func memory() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let idle = try gateway.connect()
        try idle.send(Gateway.request())
        #expect(try idle.response().status == 200)
        let idleHTTP2 = try gateway.connect("-alpn", "h2")
        try idleHTTP2.send(Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + [0, 0, 0, 4, 0, 0, 0, 0, 0])
        // The gateway's own settings.
        _ = try idleHTTP2.take(9)
        // Every gateway takes more than that.
        try gateway.rewriteConfiguration { $0 + "limits: { memory: 16MiB }\n" }
        let resident = try gateway.metric("process_resident_memory_bytes") ?? 0
        #expect(resident > Double(16 << 20))
        try gateway.reload(to: 2)
        #expect(idle.isClosedByGateway(within: 10))
        // The goodbye of HTTP/2 stands before the end.
        _ = try idleHTTP2.rest()
        #expect(try gateway.metric("gateway_idle_closed_total") == 2)
        let waiting = try gateway.connect()
        try gateway.rewriteConfiguration { $0.replacing("limits: { memory: 16MiB }\n", with: "") }
        try gateway.reload(to: 3)
        try waiting.send(Gateway.request())
        #expect(try waiting.response().status == 200)
    }
}
