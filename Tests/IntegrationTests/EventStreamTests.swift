import Testing

/// Streams of events: passed on at once, silent for long, and over when either side leaves.
@Suite("Event streams", .serialized)
struct EventStreamTests {
    private static let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

    /// A stream whose events the test releases one by one.
    private final class Source: Sendable {
        let released = Collected<String>()
        let ended = Collected<Bool>()

        func play(_ exchange: borrowing UpstreamExchange, _ framing: String) throws {
            try exchange.receiveBody()
            try exchange.send(EventStreamTests.head + framing + "\r\n")
            var sent = 0
            while true {
                let next = try Deadline(seconds: 20).wait("an event") { () -> String? in
                    released.values.count > sent ? released.values[sent] : nil
                }
                sent += 1
                if next == "end" { break }
                try exchange.send(
                    framing.contains("chunked")
                        ? "\(String(next.utf8.count, radix: 16))\r\n\(next)\r\n" : next)
            }
            if framing.contains("chunked") { try exchange.send("0\r\n\r\n") } else { exchange.close() }
        }
    }

    @Test(
        "every event is there before the next one is sent",
        arguments: ["", "Transfer-Encoding: chunked\r\n", "Cache-Control: no-cache\r\nConnection: close\r\n"])
    func atOnce(_ framing: String) throws {
        let source = Source()
        let upstream = try Upstream { exchange in try source.play(exchange, framing) }
        let gateway = try Gateway(Setup(upstream))
        var client = try CorpusClient(port: gateway.httpsPort)
        try client.send(Array(Gateway.request(fields: "Last-Event-ID: 7\r\n").utf8))
        let events = [
            ": comment\n\n", "data: a\n\n", "id: 1\r\nevent: x\r\ndata: b\r\ndata: c\r\n\r\n",
            "data: \u{e9}\n\n",
        ]
        for event in events {
            source.released.append(contentsOf: [event])
            let mark = Array(event.utf8)
            try Deadline(seconds: 5).wait("an event to come through") {
                _ = client.receive(within: 50)
                let text = client.received
                return text.count >= mark.count
                    && (0...text.count - mark.count).contains {
                        text[$0..<$0 + mark.count].elementsEqual(mark)
                    }
            }
        }
        source.released.append(contentsOf: ["end"])
        let answers = client.answers(1)
        #expect(answers.count == 1 && answers[0].isWhole)
        #expect(answers.first?.body == Array(events.joined().utf8))
        #expect(answers.first?.value("content-type") == "text/event-stream")
        #expect(try upstream.latest()["Last-Event-ID"] == "7")
    }

    @Test(
        "a caller that leaves takes its upstream's connection with it, though no event comes",
        arguments: [false, true])
    func callerLeaves(_ byReset: Bool) throws {
        let ended = Collected<Bool>()
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            try exchange.send(Self.head + "\r\ndata: a\n\n")
            _ = try exchange.receiveRest()
            ended.append(contentsOf: [true])
        }
        let gateway = try Gateway(Setup(upstream))
        let caller = try WireCaller(port: gateway.httpsPort)
        try caller.shakeHands()
        try caller.say(Gateway.request())
        try Deadline(seconds: 5).wait("the request") { !upstream.requests.isEmpty }
        try Deadline(seconds: 5).wait("the answer's head") {
            try gateway.metric("gateway_connections{state=\"active\"}") == 1
        }
        // The head and the first event are on their way; both come before the caller leaves.
        #expect(!caller.isOver(within: 300))
        if byReset { caller.connection.reset() } else { caller.connection.shutdownWrite() }
        try Deadline(seconds: 5).wait("the upstream's connection to end") { !ended.values.isEmpty }
    }

    @Test("silence is no end: the stream goes on after the time that answers have")
    func silence() throws {
        let source = Source()
        let upstream = try Upstream { exchange in try source.play(exchange, "") }
        let gateway = try Gateway(Setup(upstream).with { $0.upstream = "response_timeout: 300ms" })
        var client = try CorpusClient(port: gateway.httpsPort)
        try client.send(Array(Gateway.request().utf8))
        source.released.append(contentsOf: ["data: a\n\n"])
        try Deadline(seconds: 5).wait("the first event") { client.receive(within: 50) }
        // Nothing for three times as long as an answer may take.
        while client.receive(within: 900) {}
        let hasEnded = client.hasEnded
        #expect(!hasEnded)
        source.released.append(contentsOf: ["data: b\n\n", "end"])
        let answers = client.answers(1)
        #expect(answers.first?.body == Array("data: a\n\ndata: b\n\n".utf8))
    }

    @Test("a route's idle timeout ends a stream, and it does not look whole")
    func idleTimeout() throws {
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            try exchange.send(Self.head + "\r\ndata: a\n\n")
            exchange.waitForEnd()
        }
        let gateway = try Gateway(
            Setup(upstream).with {
                $0.routes = ["{ path: /api/**, upstream: main, idle_timeout: 400ms }"]
            })
        var client = try CorpusClient(port: gateway.httpsPort)
        try client.send(Array(Gateway.request().utf8))
        client.waitForEnd()
        let isCut = client.hasEnded && !client.endedProperly
        #expect(isCut)
    }

    @Test("an upstream that breaks breaks the stream, so that its caller connects again")
    func upstreamBreaks() throws {
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            try exchange.send(Self.head + "Transfer-Encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\n")
            exchange.close()
        }
        let gateway = try Gateway(Setup(upstream))
        var client = try CorpusClient(port: gateway.httpsPort)
        try client.send(Array(Gateway.request().utf8))
        client.waitForEnd()
        let answers = client.answers(1)
        #expect(answers.first?.isWhole == false)
    }
}
