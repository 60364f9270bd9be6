import Foundation
import Testing

/// WebSockets and event streams: bytes that must pass when they come, and not before they may.
@Suite("Tunnels and streams", .serialized)
struct TunnelTests {
    static let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"

    /// Agrees, then sends every line back.
    static let echo: Upstream.Script = { exchange in
        exchange.recordHead()
        try exchange.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                + "Sec-WebSocket-Accept: abc\r\n\r\nhello;")
        while true {
            let bytes = try exchange.receive(4)
            try exchange.send(bytes)
            if bytes == Array("bye.".utf8) { break }
        }
        exchange.close()
    }

    @Test("an upgrade passes both ways, once, and counts one call")
    func upgrade() throws {
        let upstream = try Upstream(Self.echo)
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send(Gateway.request(fields: Self.upgrade))
        let head = try client.head()
        #expect(head.startLine == "HTTP/1.1 101 Switching Protocols")
        #expect(head["Upgrade"] == "websocket")
        #expect(head["Connection"] == "Upgrade")
        #expect(head["Sec-WebSocket-Accept"] == "abc")
        #expect(head["RateLimit"] != nil)
        #expect(try client.take(6) == Array("hello;".utf8))
        for text in ["one.", "two.", "bye."] {
            try client.send(text)
            #expect(try client.take(4) == Array(text.utf8))
        }
        #expect(client.isClosedByGateway())
        let request = try upstream.latest()
        #expect(request["Upgrade"] == "websocket")
        #expect(request["Connection"] == "Upgrade")
        #expect(request["Sec-WebSocket-Version"] == "13")
    }

    @Test("bytes sent before the upstream has agreed wait for it")
    func earlyBytes() throws {
        let upstream = try Upstream(Self.echo)
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send(Gateway.request(fields: Self.upgrade) + "one.bye.")
        #expect(try client.head().startLine.contains("101"))
        #expect(try client.take(14) == Array("hello;one.bye.".utf8))
        #expect(client.isClosedByGateway())
    }

    @Test("an upgrade that the upstream declines is an ordinary answer, and the connection goes on")
    func declined() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        for _ in 0..<2 {
            try client.send(Gateway.request(fields: Self.upgrade))
            #expect(try client.response().text == "ok")
        }
    }

    @Test(
        "a protocol that would carry requests unseen is not offered to the upstream",
        arguments: ["h2c", "H2C, websocket", "TLS/1.2", "HTTP/2.0", ""])
    func dangerous(_ name: String) throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send(
            Gateway.request(
                fields:
                    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: \(name)\r\nHTTP2-Settings: AAMAAABk\r\n")
        )
        #expect(try client.response().text == "ok")
        let request = try upstream.latest()
        #expect(request["Upgrade"] == nil)
        #expect(request["Connection"] == nil)
        #expect(request["HTTP2-Settings"] == nil)
    }

    @Test(
        "an upstream that switches to what nobody asked for is not believed",
        arguments: [
            "Connection: upgrade\r\nUpgrade: other\r\n", "Upgrade: websocket\r\n", "Connection: upgrade\r\n",
        ])
    func unasked(_ fields: String) throws {
        let upstream = try Upstream(Upstream.respond("HTTP/1.1 101 Switching Protocols\r\n\(fields)\r\nX"))
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send(Gateway.request(fields: Self.upgrade))
        #expect(try client.response().status == 502)
    }

    @Test("a tunnel whose caller has gone ends at the upstream too")
    func callerGone() throws {
        let ended = Signal()
        let upstream = try Upstream { exchange in
            try exchange.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            _ = try exchange.receiveRest()
            ended.set()
        }
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send(Gateway.request(fields: Self.upgrade))
        #expect(try client.head().startLine.contains("101"))
        client.vanish()
        try ended.wait("the upstream's side of the tunnel to end")
    }

    /// How an upstream ends its side of a tunnel.
    enum End: String, CaseIterable {
        case closed, closedByCaller, cut, cutInsideFrame, reset, otherProtocol

        /// After the agreement: a frame, and perhaps a closing one.
        var script: Upstream.Script {
            { exchange in
                let name = self == .otherProtocol ? "other" : "WebSocket"
                try exchange.send(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: \(name)\r\n\r\n")
                // A text whose letters look like a closing frame's first byte.
                try exchange.send([0x81, 3, 0x88, 0x88, 0x88])
                // The caller's go-ahead: a masked frame.
                _ = try exchange.receive(7)
                switch self {
                case .closed: try exchange.send([0x88, 2, 0x03, 0xE8])
                case .closedByCaller: _ = try exchange.receive(6)
                case .cut, .otherProtocol: break
                case .cutInsideFrame: try exchange.send([0x82, 126, 1])
                case .reset:
                    exchange.reset()
                    return
                }
                exchange.close()
            }
        }
    }

    @Test(
        "a tunnel that its upstream cuts has a reason of its own, one that was closed has none",
        arguments: End.allCases)
    func ends(_ end: End) throws {
        let gateway = try Gateway(
            Setup(try Upstream(end.script)).with { $0.routes = ["{ path: /api/**, upstream: main }"] })
        // Calls that went wrong have a line however small the share of the others is.
        try gateway.rewriteConfiguration { text in
            end == .cut ? text.replacing("format: json", with: "format: json, sample: 0%") : text
        }
        if end == .cut { try gateway.reload(to: 2) }
        let client = try gateway.connect()
        let upgrade = Self.upgrade.replacing("websocket", with: end == .otherProtocol ? "other" : "websocket")
        try client.send(Gateway.request(fields: upgrade))
        #expect(try client.head().startLine.contains("101"))
        #expect(try client.take(5) == [0x81, 3, 0x88, 0x88, 0x88])
        try client.send([0x81, 0x81, 1, 2, 3, 4, 0x88])
        if end == .closedByCaller { try client.send([0x88, 0x80, 1, 2, 3, 4]) }
        _ = try? client.rest(within: 5)
        try Deadline(seconds: 5).wait("the line") { !gateway.accessLog.isEmpty }
        let isCut = end == .cut || end == .cutInsideFrame || end == .reset
        let reason = isCut ? "tunnel_cut" : "ok"
        #expect(
            gateway.accessLog[0].contains("\"status\":101,\"reason\":\"\(reason)\""),
            "\(gateway.accessLog[0])")
        #expect(try gateway.metric("gateway_refusals_total{reason=\"tunnel_cut\"}") == (isCut ? 1 : 0))
    }

    @Test("a silent tunnel ends after the route's idle time")
    func silence() throws {
        let upstream = try Upstream { exchange in
            try exchange.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            _ = try exchange.receiveRest()
        }
        let setup = Setup(upstream).with {
            $0.routes = ["{ path: /api/**, upstream: main, idle_timeout: 200ms }"]
        }
        let gateway = try Gateway(setup)
        let client = try gateway.connect()
        try client.send(Gateway.request(fields: Self.upgrade))
        #expect(try client.head().startLine.contains("101"))
        #expect(client.isClosedByGateway())
    }

    @Test("every event of a stream passes as it comes, also when the silence outlasts the response timeout")
    func events() throws {
        let taken = (0..<3).map { _ in Signal() }
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            for (index, signal) in taken.enumerated() {
                let event = "data: \(index)\n\n"
                try exchange.send(event)
                // Longer than the response timeout: the caller waits for the event of a later silence.
                try signal.wait("the caller to see event \(index)")
            }
            exchange.close()
        }
        let gateway = try Gateway(Setup(upstream).with { $0.upstream = "response_timeout: 300ms" })
        let client = try gateway.connect()
        try client.send(Gateway.request())
        let head = try client.head()
        #expect(head["Content-Type"] == "text/event-stream")
        #expect(head["Transfer-Encoding"] == "chunked")
        for (index, signal) in taken.enumerated() {
            #expect(try client.take(14) == Array("9\r\ndata: \(index)\n\n\r\n".utf8))
            if index == 1 {
                // Nothing may come for twice the response timeout, and nothing may end.
                #expect(!client.isClosedByGateway(within: 0.7))
            }
            signal.set()
        }
        #expect(try client.take(5) == Array("0\r\n\r\n".utf8))
    }
}
