import Foundation
import Testing

/// Upstreams of HTTP/2 that take few calls at once, refuse, break the protocol or die without a word.
@Suite(
    "Frail HTTP/2 upstreams", .serialized,
    .enabled(if: Clients.areInstalled, "`make test` installs the clients"))
struct FrailUpstreamTests {
    /// What the upstream has seen.
    private struct Seen: Decodable {
        var connections: Int
        /// Calls that came before the upstream had said what it takes.
        var early: Int
        /// Most calls under way on one connection.
        var most: Int
        var refused: Int
        var calls: [String]
        /// Bytes of each whole request's body.
        var bodies: [Int]
        /// Error codes.
        var goaways: [Int]
    }

    /// A gateway in front of the upstream that `Tests/Clients/frail.py` plays.
    private final class Scene {
        let upstream: LineProcess
        let gateway: Gateway

        init(_ settings: String = "", limit: String = "any", delay: Int = 0) throws {
            upstream = try Clients.start("frail.py", [limit, String(delay)])
            let port = try upstream.line()
            gateway = try Gateway(
                Setup().with {
                    $0.upstreamEndpoints = ["http://127.0.0.1:\(port)"]
                    $0.upstream = "http2: true\n\(settings)"
                })
        }

        func seen() throws -> Seen {
            try JSONDecoder().decode(Seen.self, from: Data(try upstream.ask("").utf8))
        }
    }

    @Test("nothing is asked before an upstream has said how much it takes, and then no more than that")
    func limit() throws {
        let scene = try Scene(limit: "4", delay: 150)
        let statuses = try Curl.statuses(
            "https://localhost:\(scene.gateway.httpsPort)/api/slow", key: TestKey.enterprise.secret,
            count: 40, atOnce: 40)
        #expect(statuses == Array(repeating: 200, count: 40))
        let seen = try scene.seen()
        #expect(seen.early == 0 && seen.refused == 0 && seen.most <= 4)
        // As many as 40 calls fill, and a few that were opened before the limit was known.
        #expect(seen.connections <= 12, "\(seen.connections)")
    }

    @Test("an upstream that takes no calls gets none, on one connection, and callers are told to come again")
    func none() throws {
        let scene = try Scene("queue_timeout: 300ms", limit: "0")
        for _ in 0..<3 {
            let answer = try scene.gateway.call("/api/ok")
            #expect(answer.status == 503 && answer["Retry-After"] == "1")
        }
        #expect(try scene.seen().calls.isEmpty)
        #expect(try scene.seen().connections == 1)
    }

    @Test("an upstream that does not say what it takes is one that cannot be reached")
    func noSettings() throws {
        let scene = try Scene("connect_timeout: 300ms\nretries: 0", delay: 60_000)
        #expect(try scene.gateway.call("/api/ok").status == 502)
        #expect(try scene.seen().calls.isEmpty)
    }

    @Test("an upstream that hangs up while its caller is slow harms nobody")
    func hangup() throws {
        let upstream = try Clients.start("hangup.py", [])
        let port = try upstream.line()
        let gateway = try Gateway(
            Setup().with {
                $0.upstreamEndpoints = ["http://127.0.0.1:\(port)"]
                $0.workers = 1
            })
        let slow = try (0..<3).map { _ in
            let client = try gateway.connect()
            try client.send(Gateway.request("/api/endless"))
            return client
        }
        try Deadline(seconds: 30).wait("the resets") { try Int(upstream.ask("")) == slow.count }
        for _ in 0..<10 { #expect(try gateway.call("/api/ok").text == "ok") }
        // What has come is still theirs, and does not look whole.
        for client in slow {
            #expect(try client.head().startLine == "HTTP/1.1 200 OK")
            #expect(try client.rest().count < 1 << 30)
        }
    }

    @Test("interim heads without end are nonsense, and no more than that")
    func interim() throws {
        let scene = try Scene()
        for _ in 0..<3 {
            #expect(try scene.gateway.call("/api/interim", method: "POST").status == 502)
            #expect(try scene.gateway.call("/api/ok").text == "ok")
        }
    }

    @Test("an upstream that takes fewer calls than it says is soon asked for no more")
    func crowd() throws {
        let scene = try Scene("connections: 40\nqueue: 100\nqueue_timeout: 20s")
        // Nobody can know at first: what is refused twice fails.
        let wave = try (1...10).first { _ in
            let statuses = try Curl.statuses(
                "https://localhost:\(scene.gateway.httpsPort)/api/crowd", key: TestKey.enterprise.secret,
                count: 40, atOnce: 40)
            return statuses == Array(repeating: 200, count: 40)
        }
        #expect(try scene.seen().refused > 0)
        #expect(wave != nil)
    }

    @Test("what was refused unread is sent again with its body", arguments: ["refuse", "leave"])
    func refused(_ how: String) throws {
        let scene = try Scene()
        let body = String(repeating: "b", count: 30_000)
        #expect(try scene.gateway.call("/api/1/\(how)", method: "POST", body: body).text == body)
        let client = try scene.gateway.connect()
        let chunked = Gateway.request(
            "/api/2/\(how)", method: "POST", fields: "Transfer-Encoding: chunked\r\n")
        try client.send(chunked + "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        #expect(try client.response().text == "abcde")
        try client.send(chunked.replacing("/2/", with: "/3/") + "0\r\n\r\n")
        #expect(try client.response().text == "")
        #expect(try scene.seen().bodies == [30_000, 30_000, 5, 5, 0, 0])
    }

    @Test("what is refused after its answer has begun is not sent again")
    func regretted() throws {
        let scene = try Scene()
        let client = try scene.gateway.connect()
        try client.send(
            Gateway.request("/api/regret", method: "POST", fields: "Connection: close\r\n", body: "x"))
        #expect(!String(decoding: try client.rest(), as: UTF8.self).hasSuffix("0\r\n\r\n"))
        #expect(try scene.seen().bodies == [1])
    }

    @Test("a long body is not kept, and its call not sent again in part")
    func long() throws {
        let scene = try Scene()
        let body = String(repeating: "b", count: 100_000)
        #expect(try scene.gateway.call("/api/refuse", method: "POST", body: body).status == 502)
        #expect(try scene.seen().bodies == [100_000])
    }

    @Test(
        "an upstream that breaks the protocol ends its calls at once, and the next one is served",
        arguments: ["garbage", "compression", "window", "push", "content", "settings"])
    func nonsense(_ sin: String) throws {
        let scene = try Scene("response_timeout: 60s")
        let neighbour = try scene.gateway.connect()
        try neighbour.send(Gateway.request("/api/hold", method: "POST", body: "x"))
        try Deadline(seconds: 5).wait("the call") { try scene.seen().bodies.count == 1 }
        #expect(try scene.gateway.call("/api/\(sin)", method: "POST", body: "x").status == 502)
        #expect(try neighbour.response(to: "POST").status == 502)
        #expect(try scene.gateway.call("/api/ok").text == "ok")
        let seen = try scene.seen()
        #expect(seen.connections == 2 && seen.calls.count == 3)
        #expect(seen.goaways.count == 1 && seen.goaways[0] != 0)
    }

    @Test("a call that nobody need repeat by hand outlives the nonsense that its neighbour was answered")
    func innocent() throws {
        let scene = try Scene("response_timeout: 60s\nretries: 1")
        #expect(try scene.gateway.call("/api/ok").text == "ok")
        let neighbour = try scene.gateway.connect()
        try neighbour.send(Gateway.request("/api/hold"))
        try Deadline(seconds: 5).wait("the call") { try scene.seen().calls.count == 2 }
        #expect(try scene.gateway.call("/api/garbage", method: "POST").status == 502)
        try Deadline(seconds: 5).wait("the second try") {
            try scene.seen().calls.count { $0.hasSuffix("hold") } == 2
        }
    }

    @Test(
        "malformed trailers cut their answer, so that nobody takes it for whole",
        arguments: ["lines", "feed", "nul", "space", "control", "upper", "name", "nameless"])
    func trailers(_ kind: String) throws {
        let scene = try Scene()
        let fields = "TE: trailers\r\nConnection: TE\r\n"
        let client = try scene.gateway.connect()
        try client.send(Gateway.request("/api/good", fields: fields))
        let good = try client.response()
        #expect(good.text == "body" && good.trailers["x-sum"] == "4")
        let last = fields.replacing("Connection: TE", with: "Connection: TE, close")
        try client.send(Gateway.request("/api/\(kind)", fields: last))
        // Either it is known before the answer begins, or the answer ends in the middle.
        let rest = String(decoding: try client.rest(), as: UTF8.self)
        #expect(rest.hasPrefix("HTTP/1.1 502 ") || !rest.hasSuffix("0\r\n\r\n"), "\(rest)")
        #expect(!rest.contains("x-sum") && !rest.contains("x-after"), "\(rest)")
    }

    @Test("a connection that has died without a word gets no further calls")
    func silent() throws {
        let scene = try Scene("response_timeout: 300ms")
        #expect(try scene.gateway.call("/api/ok").text == "ok")
        #expect(try scene.gateway.call("/api/mute").status == 504)
        for _ in 0..<3 { #expect(try scene.gateway.call("/api/ok").text == "ok") }
        #expect(try scene.seen().connections == 2)
    }
}
