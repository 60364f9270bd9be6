import Foundation
import Testing

/// A name server that takes its time.
@Suite("Slow names", .serialized)
struct SlowNameTests {
    /// A gateway whose one upstream goes by a name, and the line of its endpoint.
    private static func start(_ names: SlowNames, _ upstream: Upstream) throws -> Gateway {
        try Gateway(
            Setup().with {
                $0.upstreamEndpoints = ["http://one.test:\(upstream.port)"]
                $0.launcher = names.launcher
                $0.plaintext = nil
            })
    }

    @Test("nobody looks names up while the process ends")
    func noneAtTheEnd() throws {
        let names = try SlowNames()
        let upstream = try Upstream()
        let gateway = try Self.start(names, upstream)
        #expect(try gateway.call().status == 200)
        #expect(upstream.requests.count == 1)
        try names.holdBack()
        gateway.child.signal(SIGTERM)
        #expect(try gateway.child.wait(within: 8) == .exited(0))
    }

    @Test("a second signal ends the process although a name is being looked up")
    func secondSignal() throws {
        let names = try SlowNames()
        let upstream = try Upstream()
        let gateway = try Self.start(names, upstream)
        try names.holdBack()
        try gateway.rewriteConfiguration { $0.replacing("one.test", with: "two.test") }
        gateway.child.signal(SIGHUP)
        try Deadline(seconds: 10).wait("the look-up") { names.isAsked }
        gateway.child.signal(SIGTERM)
        // The control loop has ended when nobody answers there.
        try Deadline(seconds: 10).wait("the workers' end") {
            guard let client = try? PlainClient(port: gateway.adminPort) else { return true }
            try? client.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return (try? client.response(within: 0.5)) == nil
        }
        #expect(gateway.child.isRunning)
        gateway.child.signal(SIGTERM)
        #expect(try gateway.child.wait(within: 5) == .exited(0))
    }

    @Test("a second signal that comes early ends the process as well")
    func earlySecondSignal() throws {
        let names = try SlowNames()
        let gate = Collected<Int>()
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            try Deadline(seconds: 20).wait("the end") { !gate.values.isEmpty }
        }
        defer { gate.append(contentsOf: [1]) }
        let gateway = try Self.start(names, upstream)
        let client = try gateway.connect()
        try client.send(Gateway.request())
        _ = try upstream.latest()
        try names.holdBack()
        try gateway.rewriteConfiguration { $0.replacing("one.test", with: "two.test") }
        gateway.child.signal(SIGHUP)
        try Deadline(seconds: 10).wait("the look-up") { names.isAsked }
        gateway.child.signal(SIGTERM)
        try Deadline(seconds: 10).wait("the drain") { try gateway.admin("/readyz").status == 503 }
        gateway.child.signal(SIGTERM)
        #expect(try gateway.child.wait(within: 5) == .exited(0))
    }

    @Test("a port that a reload opens and the next one closes is closed, however long the first one takes")
    func twoReloads() throws {
        let names = try SlowNames()
        let upstream = try Upstream()
        let gateway = try Self.start(names, upstream)
        try names.holdBack()
        let port = "  plaintext: { address: \"127.0.0.1:\(gateway.plaintextPort)\" }\n"
        func wait(forReloads count: Int) throws {
            try Deadline(seconds: 10).wait("reload \(count)") {
                try gateway.metric("gateway_config_reloads_total{result=\"accepted\"}") == Double(count)
            }
        }
        try gateway.rewriteConfiguration {
            $0.replacing("one.test", with: "two.test").replacing("admin:\n", with: "\(port)admin:\n")
        }
        gateway.child.signal(SIGHUP)
        try wait(forReloads: 1)
        try Deadline(seconds: 10).wait("the look-up") { names.isAsked }
        try gateway.rewriteConfiguration { $0.replacing(port, with: "") }
        gateway.child.signal(SIGHUP)
        try wait(forReloads: 2)
        #expect(try gateway.metric("gateway_config_generation") == 1)
        try names.answer()
        try Deadline(seconds: 10).wait("both") { try gateway.metric("gateway_config_generation") == 3 }
        #expect((try? PlainClient(port: gateway.plaintextPort)) == nil)
        #expect(try gateway.call().status == 200)
    }

    @Test("a reload waits for the name that is being looked up, not for all that are due after it")
    func reloadGoesFirst() throws {
        let names = try SlowNames()
        let upstream = try Upstream()
        let gateway = try Gateway(
            Setup().with {
                $0.upstreamEndpoints = (0..<40).map { "http://name\($0).test:\(upstream.port)" }
                $0.launcher = names.launcher
            })
        // A look-up of all names is due every ten seconds.
        try names.holdBack()
        try Deadline(seconds: 15).wait("the look-up") { names.isAsked }
        gateway.child.signal(SIGHUP)
        try Deadline(seconds: 5).wait("the reload") { gateway.log.contains("the configuration is good") }
        let before = names.count
        try names.answer(pauseMilliseconds: 50)
        try Deadline(seconds: 10).wait("its use") { try gateway.metric("gateway_config_generation") == 2 }
        #expect(names.count &- before < 10)
    }

    @Test("scrapes while reloads take endpoints away show one configuration each, and end nothing")
    func scrapes() throws {
        let names = try SlowNames()
        let upstream = try Upstream()
        let gateway = try Self.start(names, upstream)
        // So that a reload takes effect in the middle of scrapes, and not before the next one begins.
        try names.answer(pauseMilliseconds: 3)
        let isOver = Signal()
        let scrapers = (0..<3).map { _ in
            TestThread {
                let client = try PlainClient(port: gateway.adminPort)
                while !isOver.hasCome {
                    try client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    let text = try client.response().text
                    let lines = text.split(separator: "\n")
                    let count = lines.count { $0.hasPrefix("gateway_upstream_healthy{") }
                    guard count == 1 || count == 60 else { throw HarnessError("\(count) endpoints") }
                }
            }
        }
        var present = "endpoints: [\"http://one.test:\(upstream.port)\"]"
        for generation in 2..<82 {
            // A name that is new each time has to be looked up.
            let endpoints =
                ["http://name\(generation).test:\(upstream.port)"]
                + (generation % 2 == 0 ? (1..<60).map { "http://127.0.0.1:\($0)" } : [])
            let next = "endpoints: [\(endpoints.map { "\"\($0)\"" }.joined(separator: ", "))]"
            try gateway.rewriteConfiguration { $0.replacing(present, with: next) }
            present = next
            try gateway.reload(to: generation)
        }
        isOver.set()
        for scraper in scrapers { try scraper.join(within: 10) }
        #expect(try gateway.call().status == 200)
    }
}
