import Foundation
import Glibc
import Testing

/// Upstreams that fail, and what callers see of it.
@Suite("Upstreams", .serialized)
struct UpstreamTests {
    @Test(
        "nonsense becomes a 502 and its connection is not used again",
        arguments: [
            "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX-A : 1\r\n\r\n", "",
        ])
    func nonsense(_ text: String) throws {
        let upstream = try Upstream(Upstream.respond(text, closes: true))
        let gateway = try Gateway(Setup(upstream))
        let response = try gateway.call(method: "POST", body: "x")
        #expect(response.status == 502)
        #expect(response.text.hasPrefix("{\"error\":{\"code\":\"UPSTREAM_ERROR\""))
        upstream.play(Upstream.answer("good"))
        #expect(try gateway.call().text == "good")
    }

    @Test("a body cut short cuts the answer, so that nobody takes half for whole")
    func cutShort() throws {
        let upstream = try Upstream(
            Upstream.respond("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", closes: true))
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send(Gateway.request())
        #expect(try client.head().startLine == "HTTP/1.1 200 OK")
        #expect(try client.rest() == Array("half".utf8))
    }

    @Test("bytes behind an answer end the upstream's connection")
    func surplus() throws {
        let upstream = try Upstream(
            Upstream.respond("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n"))
        let gateway = try Gateway(Setup(upstream))
        for _ in 0..<2 { #expect(try gateway.call().text == "ok") }
        #expect(upstream.connectionCount == 2)
    }

    @Test("an endpoint that ends its idle connections gets no more than its share of calls")
    func shares() throws {
        let ending = try Upstream(
            Upstream.respond("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", closes: true))
        let lasting = try Upstream()
        let gateway = try Gateway(Setup(ending, lasting))
        for _ in 0..<60 { #expect(try gateway.call().status == 200) }
        // Two equals: fewer than 12 of 60 by chance once in a million runs.
        #expect(lasting.requests.count >= 12, "\(lasting.requests.count)")
        #expect(ending.requests.count >= 12, "\(ending.requests.count)")
    }

    @Test("streams with nothing to say do not have their endpoint left out")
    func quietStreams() throws {
        let quiet = try Upstream { exchange in
            try exchange.receiveBody()
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\n")
            exchange.waitForEnd()
        }
        let lasting = try Upstream()
        let gateway = try Gateway(
            Setup(quiet, lasting).with {
                $0.routes = ["{ path: /api/**, upstream: main, idle_timeout: 200ms }"]
                $0.upstream = "balance: round_robin"
            })
        let callers = try (0..<16).map { _ in
            let caller = try gateway.connect()
            try caller.send(Gateway.request())
            return caller
        }
        let streams = try callers.filter { try $0.head()["Content-Type"] == "text/event-stream" }
        // Cut, after their silence.
        for stream in streams { _ = try? stream.rest() }
        #expect(quiet.requests.count == 8)
        quiet.play(Upstream.answer("good"))
        for _ in 0..<16 { #expect(try gateway.call().status == 200) }
        #expect(quiet.requests.count == 16)
    }

    @Test("an upstream that was not heard to want a body is not asked again on its connection")
    func unwanted() throws {
        let upstream = try Upstream { exchange in
            exchange.recordHead()
            // What it has read of the body is lost, or is the next request.
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        }
        let gateway = try Gateway(Setup(upstream))
        let fields = "Expect: 100-continue\r\n"
        for _ in 0..<2 {
            #expect(try gateway.call(method: "POST", fields: fields, body: "abcde").text == "ok")
        }
        #expect(upstream.connectionCount == 2)
        #expect(upstream.requests.count == 2)
    }

    @Test("an idle connection that has died is replaced without the caller noticing")
    func retry() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream))
        #expect(try gateway.call().status == 200)
        upstream.play { exchange in
            if exchange.request.connection == 0 {
                exchange.recordHead()
                exchange.reset()
            } else {
                try Upstream.answer("second")(exchange)
            }
        }
        #expect(try gateway.call().text == "second")
    }

    @Test("a call with a body is not sent twice")
    func noRetry() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream))
        #expect(try gateway.call().status == 200)
        upstream.play { exchange in
            try exchange.receiveBody()
            exchange.reset()
        }
        #expect(try gateway.call(method: "POST", body: "x").status == 502)
        #expect(upstream.requests.count == 2)
    }

    @Test("a dead endpoint is passed over, and a late one answers 504")
    func deadAndLate() throws {
        let dead = try Upstream()
        let live = try Upstream()
        dead.stop()
        let gateway = try Gateway(Setup(dead, live).with { $0.upstream = "response_timeout: 300ms" })
        for _ in 0..<20 { #expect(try gateway.call(method: "POST", body: "x").status == 200) }
        live.play { exchange in
            try exchange.receiveBody()
            _ = try exchange.receiveRest()
        }
        #expect(try gateway.call("/api/late").status == 504)
        try Deadline(seconds: 5).wait("its line") { gateway.accessLog.last?.contains("/api/late") == true }
        let line = try #require(gateway.accessLog.last?.firstMatch(of: #/"upstream_duration":([0-9.]+)/#))
        #expect(try #require(Double(line.1)) >= 0.3, "\(line.0)")
    }

    @Test("endpoints whose calls all failed are better than none")
    func allEjected() throws {
        let bad = Upstream.respond("", closes: true)
        let (one, two) = (try Upstream(bad), try Upstream(bad))
        let gateway = try Gateway(Setup(one, two))
        for _ in 0..<24 { #expect(try gateway.call(method: "POST", body: "x").status == 502) }
        one.play(Upstream.answer("good"))
        two.play(Upstream.answer("good"))
        #expect(try gateway.call(method: "POST", body: "x").text == "good")
    }

    @Test("a name leads to each of its addresses, and no longer to one that it has given up")
    func addresses() throws {
        // The upstream listens at one of them.
        let hosts = try Hosts("127.0.0.1 two.test", "::1 two.test")
        let upstream = try Upstream()
        let gateway = try Gateway(
            Setup().with {
                $0.upstreamEndpoints = ["http://two.test:\(upstream.port)"]
                $0.launcher = hosts.launcher
            })
        for _ in 0..<4 { #expect(try gateway.call(method: "POST", body: "x").status == 200) }
        #expect(upstream.connectionCount == 1)
        // Names are looked up every ten seconds.
        try hosts.replace("127.0.0.9 two.test")
        // An address may be missing in some answers.
        try Deadline(seconds: 60).wait("the warm connection to be left") {
            poll(nil, 0, 100)
            return try gateway.call().status == 502
        }
    }

    @Test("active checks take an endpoint out and bring it back")
    func health() throws {
        let one = try Upstream(Upstream.answer("one"))
        let two = try Upstream(Upstream.answer("two"))
        let gateway = try Gateway(
            Setup(one, two).with {
                $0.upstream =
                    "balance: round_robin\nhealth: { path: /healthz, interval: 100ms, unhealthy: 2 }"
            })
        one.isHealthy = false
        let sample = "gateway_upstream_healthy{upstream=\"main\",endpoint=\"\(one.endpoint)\"}"
        try Deadline(seconds: 5).wait("the endpoint to be out") { try gateway.metric(sample) == 0 }
        for _ in 0..<6 { #expect(try gateway.call().text == "two") }
        one.isHealthy = true
        try Deadline(seconds: 5).wait("the endpoint to be back") { try gateway.metric(sample) == 1 }
        let answers = try (0..<6).map { _ in try gateway.call().text }
        #expect(Set(answers) == ["one", "two"])
        two.isHealthy = false
        one.isHealthy = false
        try Deadline(seconds: 5).wait("503") { try gateway.call().status == 503 }
    }

    @Test("hash keeps an account on one endpoint")
    func hash() throws {
        let upstreams = try (0..<3).map { number in try Upstream(Upstream.answer("\(number)")) }
        let gateway = try Gateway(
            Setup(upstreams[0], upstreams[1], upstreams[2]).with { $0.upstream = "balance: hash" })
        #expect(Set(try (0..<8).map { _ in try gateway.call(key: .pro).text }).count == 1)
    }

    @Test("hash takes an account to the same endpoint through every gateway, however its file is ordered")
    func hashAgrees() throws {
        let upstreams = try (0..<3).map { number in try Upstream(Upstream.answer("\(number)")) }
        let keys = (0..<12).map { number in
            TestKey(
                secret: "sk_live_agreed_\(number)_abc", id: "key_\(number)", account: "account\(number)",
                tier: "enterprise")
        }
        let choices = try [[0, 1, 2], [2, 0, 1]].map { order in
            let gateway = try Gateway(
                Setup(upstreams[order[0]], upstreams[order[1]], upstreams[order[2]]).with {
                    $0.upstream = "balance: hash"
                    $0.keys = keys
                })
            return try keys.map { try gateway.call(key: $0).text }
        }
        #expect(choices[0] == choices[1])
        #expect(Set(choices[0]).count > 1)
    }

    @Test("a caller that does not read makes neither side grow")
    func backPressure() throws {
        let chunk = [UInt8](repeating: 0x78, count: 1 << 20)
        let sent = Collected<Int>()
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: \(200 << 20)\r\n\r\n")
            for _ in 0..<200 {
                try exchange.send(chunk)
                sent.append(contentsOf: [1])
            }
        }
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send(Gateway.request())
        _ = try client.head()
        var last = -1
        try Deadline(seconds: 20).wait("the flow to stop") {
            let now = sent.values.count
            defer { last = now }
            try? Deadline(seconds: 0.3).wait("time to pass") { false }
            return now == last && now > 0
        }
        #expect(sent.values.count < 60)
        let memory = try #require(try gateway.metric("process_resident_memory_bytes"))
        #expect(Gateway.isSanitized || memory < 64 * 1_048_576)
        client.vanish()
        #expect(try gateway.call(key: .pro, method: "HEAD").status == 200)
    }
}
