import Glibc
import Testing

/// Bodies that wait for their upstream, and callers that say goodbye meanwhile.
@Suite("Bodies that wait", .serialized)
struct BodyTests {
    private static let ok = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"

    /// A caller that sends a text and then closes its side.
    private static func leave(_ gateway: Gateway, _ text: String) throws -> WireCaller {
        let caller = try WireCaller(port: gateway.httpsPort)
        try caller.shakeHands()
        try caller.say(text)
        caller.connection.shutdownWrite()
        return caller
    }

    @Test("a caller that shuts its side still gets its answer")
    func halfClose() throws {
        let gate = Collected<Int>()
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            try Deadline(seconds: 5).wait("the caller's half-close") { !gate.values.isEmpty }
            try exchange.send(Self.ok)
        }
        let gateway = try Gateway(Setup(upstream))
        let caller = try Self.leave(gateway, Gateway.request())
        _ = try upstream.latest()
        gate.append(contentsOf: [1])
        #expect(caller.rest(within: 5).hasSuffix("late"))
    }

    @Test(
        "a request whose caller has shut its side before there was an upstream for it is whole, or is none",
        arguments: [true, false])
    func goodbyeInQueue(_ isWhole: Bool) throws {
        let gate = Collected<Int>()
        let upstream = try Upstream { exchange in
            if exchange.request.target == "/api/first" {
                exchange.recordHead()
                try Deadline(seconds: 5).wait("the second call") { !gate.values.isEmpty }
            } else {
                try exchange.receiveBody()
            }
            try exchange.send(Self.ok)
        }
        let gateway = try Gateway(Setup(upstream).with { $0.upstream = "connections: 1\nqueue: 9" })
        let first = try gateway.connect()
        try first.send(Gateway.request("/api/first"))
        _ = try upstream.latest()
        let caller = try Self.leave(
            gateway,
            Gateway.request(
                "/api/second", method: "POST", fields: "Content-Length: \(isWhole ? 4 : 5)\r\n") + "body"
                + (isWhole ? Gateway.request("/api/third") : ""))
        try Deadline(seconds: 5).wait("the queue") {
            try gateway.metric("gateway_upstream_queued_total") == 1
        }
        gate.append(contentsOf: [1])
        #expect(try first.response().text == "late")
        #expect(caller.rest(within: 5).split(separator: "late").count == (isWhole ? 2 : 0))
        #expect(upstream.requests.last?.target == (isWhole ? "/api/third" : "/api/first"))
    }

    @Test("a body has its time from when its upstream asks for it")
    func lateContinue() throws {
        let upstream = try Upstream { exchange in
            poll(nil, 0, 1_200)
            try exchange.send("HTTP/1.1 100 Continue\r\n\r\n")
            try exchange.receiveBody()
            try exchange.send(Self.ok)
        }
        let gateway = try Gateway(Setup(upstream).with { $0.timeouts = "drain_delay: 0s, body: 2s" })
        let client = try gateway.connect()
        try client.send(
            Gateway.request(method: "POST", fields: "Expect: 100-continue\r\nContent-Length: 4\r\n"))
        #expect(try client.response(keepsInterim: true).status == 100)
        poll(nil, 0, 1_400)
        try client.send("body")
        #expect(try client.response(to: "POST").status == 200)
    }

    @Test("requests that stand behind one under way are answered though their caller has shut its side")
    func pipelinedGoodbye() throws {
        let gate = Collected<Int>()
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            if exchange.request.target == "/api/1" {
                try Deadline(seconds: 5).wait("the caller's half-close") { !gate.values.isEmpty }
            }
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\(exchange.request.target)")
        }
        let gateway = try Gateway(Setup(upstream))
        // One that is refused ends nothing.
        let texts = ["/api/1", "/nowhere", "/api/2", "/api/3"].map { Gateway.request($0) }.joined()
        let caller = try Self.leave(gateway, texts + "GET /api/half HTTP/1.1\r\n")
        try Deadline(seconds: 5).wait("the first call") { upstream.requests.count == 1 }
        gate.append(contentsOf: [1])
        let answers = caller.rest(within: 5)
        for number in 1...3 { #expect(answers.contains("\r\n\r\n/api/\(number)"), "\(answers)") }
        #expect(upstream.requests.count == 3)
    }

    @Test("a caller that shuts its side and then resets costs no time, and its upstream is let go")
    func resetBehindGoodbye() throws {
        let gone = Collected<Int>()
        let upstream = try Upstream { exchange in
            exchange.recordHead()
            exchange.waitForEnd()
            gone.append(contentsOf: [1])
        }
        let gateway = try Gateway(Setup(upstream))
        let caller = try Self.leave(gateway, Gateway.request())
        _ = try upstream.latest()
        // The end is taken as one before the reset comes.
        poll(nil, 0, 50)
        caller.connection.reset()
        try Deadline(seconds: 5).wait("the upstream to be let go") { !gone.values.isEmpty }
        let before = try gateway.child.cpuSeconds()
        poll(nil, 0, 300)
        #expect(try gateway.child.cpuSeconds() - before < 0.1)
    }

    @Test(
        "a window full of bytes that came one by one is passed on whole",
        .enabled(if: Clients.areInstalled, "`make test` installs the clients"))
    func tinyFrames() throws {
        let gate = Collected<Int>()
        let upstream = try Upstream { exchange in
            if exchange.request.target == "/api/first" {
                exchange.recordHead()
                try Deadline(seconds: 25).wait("the body") { !gate.values.isEmpty }
            } else {
                try exchange.receiveBody()
            }
            try exchange.send(Self.ok)
        }
        let gateway = try Gateway(
            Setup(upstream).with { $0.upstream = "connections: 1\nqueue: 9\nqueue_timeout: 30s" })
        let first = try gateway.connect()
        try first.send(Gateway.request("/api/first"))
        _ = try upstream.latest()
        let received = { try gateway.metric("gateway_received_bytes_total") ?? 0 }
        let before = try received()
        let caller = try Clients.start(
            "tiny.py",
            [
                String(gateway.httpsPort), try Certificate.shared.get().chainPath, "/api/second",
                TestKey.enterprise.secret, "60000",
            ])
        try Deadline(seconds: 15).wait("all of the body") { try received() >= before + 600_000 }
        gate.append(contentsOf: [1])
        #expect(try caller.line() == "200")
        #expect(upstream.requests.last?.body.count == 60_000)
    }
}
