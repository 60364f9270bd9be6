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

    @Test("a long body is not kept, and its call not sent again in part")
    func long() throws {
        let scene = try Scene()
        let body = String(repeating: "b", count: 100_000)
        #expect(try scene.gateway.call("/api/refuse", method: "POST", body: body).status == 502)
        #expect(try scene.seen().bodies == [100_000])
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
        try client.send(Gateway.request("/api/\(kind)", fields: fields))
        // Either it is known before the answer begins, or the answer ends in the middle.
        let rest = String(decoding: try client.rest(), as: UTF8.self)
        #expect(rest.hasPrefix("HTTP/1.1 502 ") || !rest.hasSuffix("0\r\n\r\n"), "\(rest)")
        #expect(!rest.contains("x-sum") && !rest.contains("x-after"), "\(rest)")
    }
}
