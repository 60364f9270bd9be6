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
