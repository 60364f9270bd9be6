import Foundation
import Glibc
import Testing

/// Upstreams of HTTP/2 that refuse, break and end in the middle, and what callers of HTTP/1.1 see of it.
@Suite(
    "HTTP/2 upstreams", .serialized, .enabled(if: Clients.areInstalled, "`make test` installs the clients"))
struct HTTP2UpstreamTests {
    /// What the upstream has seen.
    private struct Seen: Decodable {
        var connections: Int
        /// Connection, method, path.
        var calls: [[Value]]
        /// Connection, error code.
        var resets: [[Int]]

        enum Value: Decodable, Equatable {
            case number(Int)
            case text(String)

            init(from decoder: any Decoder) throws {
                let container = try decoder.singleValueContainer()
                if let number = try? container.decode(Int.self) {
                    self = .number(number)
                } else {
                    self = .text(try container.decode(String.self))
                }
            }
        }
    }

    /// A gateway in front of the upstream that `Tests/Clients/upstream.py` plays.
    private final class Scene {
        let upstream: LineProcess
        let gateway: Gateway

        init(_ settings: String = "", timeouts: String = "drain_delay: 0s") throws {
            upstream = try Clients.start("upstream.py", [])
            let port = try upstream.line()
            gateway = try Gateway(
                Setup().with {
                    $0.upstreamEndpoints = ["http://127.0.0.1:\(port)"]
                    $0.upstream = "http2: true\n\(settings)"
                    $0.timeouts = timeouts
                })
        }

        func seen() throws -> Seen {
            try JSONDecoder().decode(Seen.self, from: Data(try upstream.ask("").utf8))
        }
    }

    @Test("no more calls than allowed are under way; the others wait, and too many or too long get 503")
    func queue() throws {
        let scene = try Scene("connections: 2\nqueue: 1\nqueue_timeout: 500ms")
        let held = try (0..<2).map { _ in
            let client = try scene.gateway.connect()
            try client.send(Gateway.request("/api/hold"))
            return client
        }
        try Deadline(seconds: 5).wait("the calls") { try scene.seen().calls.count == 2 }
        let waiting = try scene.gateway.connect()
        try waiting.send(Gateway.request("/api/ok"))
        try Deadline(seconds: 5).wait("the queue") {
            try scene.gateway.metric("gateway_upstream_queued_total") == 1
        }
        let refused = try scene.gateway.call("/api/ok")
        #expect(refused.status == 503 && refused["Retry-After"] == "1")
        #expect(try scene.seen().calls.count == 2)
        let released = try scene.upstream.ask("release")
        #expect(!released.isEmpty)
        for client in held { #expect(try client.response().text == "held") }
        #expect(try waiting.response().text == "ok")
        // Nobody ends in time.
        for client in held { try client.send(Gateway.request("/api/hold")) }
        try Deadline(seconds: 5).wait("the calls") { try scene.seen().calls.count == 5 }
        let late = try scene.gateway.call("/api/ok")
        #expect(late.status == 503 && late["Retry-After"] == "1")
        #expect(try scene.gateway.metric("gateway_upstream_overflows_total") == 2)
        _ = try scene.upstream.ask("release")
        for client in held { #expect(try client.response().text == "held") }
        #expect(try scene.seen().connections == 1)
    }

    @Test("calls share one connection and read as they were sent")
    func shared() throws {
        let scene = try Scene()
        for _ in 0..<3 { #expect(try scene.gateway.call("/api/ok").text == "ok") }
        let answer = try scene.gateway.call(
            "/api/fields", fields: "X-Odd: Mixed Case\r\nConnection: X-Gone\r\nX-Gone: 1\r\nCookie: a=1\r\n")
        let fields = try JSONDecoder().decode([String: String].self, from: Data(answer.text.utf8))
        #expect(fields[":path"] == "/api/fields")
        #expect(fields[":scheme"] == "http")
        #expect(fields[":authority"] == "localhost")
        #expect(fields["x-odd"] == "Mixed Case")
        #expect(fields["x-gateway-account"] == TestKey.enterprise.account)
        for name in ["connection", "x-gone", "host", "authorization", "transfer-encoding"] {
            #expect(fields[name] == nil, "\(name)")
        }
        #expect(try scene.seen().connections == 1)
    }

    @Test("bodies, trailers and interim answers pass", .timeLimit(.minutes(1)))
    func bodies() throws {
        let scene = try Scene()
        let body = String(repeating: "b", count: 300_000)
        #expect(try scene.gateway.call("/api/count", method: "POST", body: body).text == "[300000, {}]")
        let client = try scene.gateway.connect()
        try client.send(
            Gateway.request("/api/count", method: "POST", fields: "Transfer-Encoding: chunked\r\n")
                + "3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n")
        #expect(try client.response().text == "[5, {\"x-sum\": \"5\"}]")
        #expect(try scene.gateway.call("/api/big").body.count == 3_000_000)
        #expect(try scene.gateway.call("/api/empty").status == 204)
        try client.send(Gateway.request("/api/interim"))
        #expect(try client.response(keepsInterim: true).status == 103)
        #expect(try client.response().text == "final")
        try client.send(Gateway.request("/api/trailers", fields: "TE: trailers\r\nConnection: TE\r\n"))
        #expect(try client.head()["Transfer-Encoding"] == "chunked")
        let rest = "4\r\nbody\r\n0\r\nx-sum: 4\r\n\r\n"
        #expect(try client.take(rest.utf8.count) == Array(rest.utf8))
    }

    @Test("checks speak HTTP/2 to an upstream that does, and judge its answers", arguments: ["ok", "reset"])
    func checks(_ what: String) throws {
        let scene = try Scene("health: { path: /check/\(what), interval: 100ms, unhealthy: 2 }")
        let checks = { try scene.seen().calls.count { $0[2] == .text("/check/\(what)") } }
        try Deadline(seconds: 10).wait("some checks") { try checks() >= 4 }
        if what == "ok" {
            #expect(try scene.gateway.call("/api/ok").text == "ok")
        } else {
            try Deadline(seconds: 5).wait("the endpoint to be out") {
                try scene.gateway.call("/api/ok").status == 503
            }
        }
    }

    @Test("an upstream that takes a body little by little is not late")
    func slowWindow() throws {
        let scene = try Scene("response_timeout: 1s")
        let body = String(repeating: "b", count: 110_000)
        #expect(try scene.gateway.call("/api/drip/count", method: "POST", body: body).text == "[110000, {}]")
    }

    @Test("a caller has the time of a body again once its upstream's window opens", arguments: [true, false])
    func shutWindow(_ goesOn: Bool) throws {
        let scene = try Scene(timeouts: "drain_delay: 0s, body: 1s")
        let client = try scene.gateway.connect()
        let fields = "Content-Length: 200000\r\n"
        try client.send(
            Gateway.request("/api/shut/count", method: "POST", fields: fields)
                + String(repeating: "b", count: 100_000))
        try Deadline(seconds: 5).wait("the call") { try scene.seen().calls.count == 1 }
        // As long as a body may stand still and half as long again.
        poll(nil, 0, 1_500)
        _ = try scene.upstream.ask("release")
        if goesOn { try client.send(String(repeating: "b", count: 100_000)) }
        #expect(try client.response(to: "POST").status == (goesOn ? 200 : 408))
    }

    @Test("what an upstream says together with the end of its handshake is read")
    func earlySettings() throws {
        let certificate = try Certificate.shared.get()
        let upstream = try Clients.start("early.py", [certificate.chainPath, certificate.keyPath])
        let port = try upstream.line()
        let gateway = try Gateway(
            Setup().with {
                $0.upstreamEndpoints = ["https://localhost:\(port)"]
                $0.upstream = "http2: true\nca: \"\(certificate.chainPath)\""
            })
        for _ in 0..<3 { #expect(try gateway.call().text == "early") }
    }

    @Test("what was refused unread is sent again, also when it is not idempotent")
    func refused() throws {
        let scene = try Scene()
        #expect(try scene.gateway.call("/api/get/refuse").text == "second")
        #expect(try scene.gateway.call("/api/post/refuse", method: "POST").text == "second")
        let calls = try scene.seen().calls
        #expect(calls.count == 4)
    }

    @Test("a POST that may have been read is not sent again", arguments: ["/api/reset", "/api/close"])
    func notTwice(_ path: String) throws {
        let scene = try Scene()
        #expect(try scene.gateway.call(path, method: "POST").status == 502)
        #expect(try scene.seen().calls.count == 1)
    }

    @Test("half an answer is cut, so that nobody takes it for whole", arguments: ["/api/half", "/api/short"])
    func half(_ path: String) throws {
        let scene = try Scene()
        let client = try scene.gateway.connect()
        try client.send(Gateway.request(path))
        #expect(try client.head().startLine == "HTTP/1.1 200 OK")
        #expect(try client.rest().count < 10)
    }

    @Test("a field that belongs to a connection is nonsense")
    func hop() throws {
        let scene = try Scene()
        #expect(try scene.gateway.call("/api/hop", method: "POST").status == 502)
    }

    @Test("after a GOAWAY calls go to a new connection, and none is lost")
    func goAway() throws {
        let scene = try Scene()
        #expect(try scene.gateway.call("/api/goaway").text == "last")
        #expect(try scene.gateway.call("/api/ok").text == "ok")
        #expect(try scene.seen().connections == 2)
    }

    @Test("a caller that leaves, and an answer that is late, end their stream only")
    func cancelled() throws {
        let scene = try Scene("response_timeout: 300ms")
        #expect(try scene.gateway.call("/api/hang").status == 504)
        let client = try scene.gateway.connect()
        try client.send(Gateway.request("/api/hang"))
        try Deadline(seconds: 5).wait("the call to arrive") { try scene.seen().calls.count == 2 }
        client.vanish()
        try Deadline(seconds: 5).wait("both calls to be reset") { try scene.seen().resets.count == 2 }
        #expect(try scene.seen().resets.allSatisfy { $0[1] == 8 })
        #expect(try scene.gateway.call("/api/ok").text == "ok")
        #expect(try scene.seen().connections == 1)
    }
}
