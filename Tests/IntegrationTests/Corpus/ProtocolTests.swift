import Foundation
import Glibc
import TestSupport
import Testing

/// WebSocket, gRPC and event streams as odd callers and upstreams play them, with the key check off and on.
@Suite(
    "Protocol cases", .serialized, .enabled(if: Clients.areInstalled, "`make test` installs the clients"))
struct ProtocolTests {
    private struct Peers: Decodable {
        var h1: Int
        var h2: Int
        var old: Int
        var frail: Int
    }

    private struct Order: Encodable {
        var port: Int
        var trust: String
        var keys: [String: String]
        var prefixes: [String]
    }

    private struct Result: Decodable {
        var cases: Int
        var failed: [String]
    }

    private static let keys = [
        TestKey(
            secret: "sk_live_all", id: "key_all", account: "all", tier: "enterprise",
            scopes: ["*"]),
        TestKey(secret: "sk_live_pro", id: "key_narrow", account: "narrow", tier: "pro"),
        TestKey(secret: "sk_live_counted", id: "key_counted", account: "counted", tier: "standard"),
        TestKey(secret: "sk_live_few", id: "key_few", account: "few", tier: "few"),
    ]

    private static func setup(_ ports: Peers) throws -> Setup {
        Setup().with {
            $0.upstreamEndpoints = ["http://127.0.0.1:\(ports.h1)"]
            $0.upstream = "response_timeout: 1s"
            $0.timeouts = "drain_delay: 0s, body: 1s"
            $0.moreUpstreams = [("h2", ports.h2), ("old", ports.old), ("frail", ports.frail)].map {
                "  \($0): { endpoints: [\"http://127.0.0.1:\($1)\"], http2: true, response_timeout: 1s }\n"
            }.joined()
            $0.keys = keys
            $0.tiers += "\nfew:        { limits: [3/minute] }"
            $0.routes = ["h1", "h2", "old", "frail"].flatMap { name in
                let upstream = name == "h1" ? "main" : name
                return [
                    "{ path: /open/\(name)/**, access: public, upstream: \(upstream) }",
                    "{ path: /keyed/\(name)/**, upstream: \(upstream) }",
                ]
            }
            $0.routes += [
                "{ path: /short/h1/**, access: public, upstream: main, idle_timeout: 500ms }",
                "{ path: /keyed/short/h1/**, upstream: main, idle_timeout: 500ms }",
                "{ path: /open/short/h2/**, access: public, upstream: h2, idle_timeout: 700ms }",
                "{ path: /keyed/short/h2/**, upstream: h2, idle_timeout: 700ms }",
                "{ path: /keyed/scoped/**, scopes: [\"no:such\"], upstream: main }",
                "{ path: /down/**, access: public, upstream: gone }",
            ]
            $0.sections = "limits: { body: 6MiB }\n"
        }
    }

    @Test("each case is met", arguments: [("websocket", 56), ("connect", 30), ("grpc", 48), ("events", 30)])
    func cases(_ kind: String, _ least: Int) throws {
        let peers = try Clients.start("protocols.py", [kind])
        let ports = try JSONDecoder().decode(Peers.self, from: Data(try peers.line().utf8))
        let gone = try Ports.free()
        let gateway = try Gateway(
            try Self.setup(ports).with {
                $0.moreUpstreams += "  gone: { endpoints: [\"http://127.0.0.1:\(gone)\"] }\n"
            })
        let order = Order(
            port: Int(gateway.httpsPort), trust: try Certificate.shared.get().chainPath,
            keys: Dictionary(
                uniqueKeysWithValues: Self.keys.map { (String($0.secret.dropFirst(8)), $0.secret) }),
            prefixes: ["/open", "/keyed"])
        let text = String(decoding: try JSONEncoder().encode(order), as: UTF8.self)
        let result = try JSONDecoder().decode(Result.self, from: Data(try peers.ask(text).utf8))
        #expect(result.cases >= least)
        for problem in result.failed { Issue.record("\(problem)") }
    }

    @Test("slow callers of HTTP/2 are let go in time, and an honest one is not")
    func slow() throws {
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            if exchange.request.target == "/late" {
                try exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxx\r\n")
                poll(nil, 0, 100)
                try exchange.send("0\r\n\r\n")
                return
            }
            let count = exchange.request.target == "/large" ? 300_000 : 2
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: \(count)\r\n\r\n")
            try exchange.send([UInt8](repeating: 0x78, count: count))
        }
        let gateway = try Gateway(
            Setup(upstream).with {
                $0.routes = ["{ path: /**, access: public, upstream: main }"]
                $0.timeouts = "drain_delay: 0s, head: 1200ms, body: 1200ms, idle: 2s"
            })
        let outcome = try Clients.run(
            "slow.py",
            [String(gateway.httpsPort), try Certificate.shared.get().chainPath, "1.2", "1.2", "2"])
        let result = try JSONDecoder().decode(Result.self, from: Data(outcome.output.utf8))
        #expect(result.cases == 22)
        for problem in result.failed { Issue.record("\(problem)") }
    }

    @Test(
        "floods of HTTP/2 and HTTP/1.1 cost little, end where no protocol means them, and harm nobody"
    )
    func floods() throws {
        let outcome = try Clients.run("../Bench/floods.py", ["1"], within: 200)
        let rows = outcome.output.split(separator: "\n").dropFirst(2).map { row in
            row.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
        }
        #expect(rows.count >= 33, "\(outcome.error)")
        let ended = [
            "rapid reset", "settings", "ping", "priority", "priority update", "unknown frames", "empty data",
            "resets of closed streams", "header bomb", "continuations",
        ]
        for row in rows {
            try #require(row.count == 10, "\(row)")
            #expect(row[6] == "0", "a good call failed: \(row)")
            let memory = try #require(Double(row[4]))
            #expect(Gateway.isSanitized || memory < 128, "memory: \(row)")
            #expect(try #require(Double(row[9])) < 1_500, "a good call waited: \(row)")
            if ended.contains(row[0]) { #expect(row[2] != "0", "not ended: \(row)") }
        }
    }
}
