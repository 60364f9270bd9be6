import Foundation
import TestSupport
import Testing

/// A new configuration in a running process.
@Suite("Reload", .serialized)
struct ReloadTests {
    @Test("a call under way finishes on the configuration it began with, and the next uses the new one")
    func routes() throws {
        let gate = Collected<Int>()
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            if exchange.request.target == "/api/slow" {
                try Deadline(seconds: 20).wait("the reload") { !gate.values.isEmpty }
            }
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        }
        let gateway = try Gateway(Setup(upstream))
        let kept = try gateway.connect()
        try kept.send(Gateway.request("/api/one"))
        #expect(try kept.response().status == 200)
        let slow = try gateway.connect()
        try slow.send(Gateway.request("/api/slow"))
        try Deadline(seconds: 5).wait("the call") { upstream.requests.contains { $0.target == "/api/slow" } }
        try gateway.rewriteConfiguration {
            $0.replacing("{ path: /api/**, upstream: main }", with: "{ path: /new/**, upstream: main }")
        }
        try gateway.reload(to: 2)
        gate.append(contentsOf: [1])
        #expect(try slow.response().text == "ok")
        for (path, status) in [("/api/one", 404), ("/new/one", 200)] {
            try kept.send(Gateway.request(path))
            #expect(try kept.response().status == status, "\(path) on the connection from before")
            #expect(try gateway.call(path).status == status, "\(path)")
        }
        // The call that began under the old route counts there; that it is gone from the file hides it.
        #expect(try gateway.metricSum("gateway_requests_total", holding: "route=\"/new/**\"") == 2)
    }

    @Test("a prefix that the configuration no longer names ends its keys, also where they are remembered")
    func prefixes() throws {
        let redis = try RedisServer()
        let stored = TestKey(secret: "pk_live_stored", id: "", account: "", tier: "")
        try redis.store(stored.secret, ["tier": "pro"])
        let declared = TestKey(secret: "pk_live_declared", id: "key_pk", account: "pk", tier: "pro")
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.keys.append(declared)
                $0.store = "url: \"\(redis.url)\""
            })
        let (both, one) = ("prefixes: [sk_live_, pk_live_]", "prefixes: [sk_live_]")
        try gateway.rewriteConfiguration { $0.replacing(one, with: both) }
        try gateway.reload(to: 2)
        for key in [stored, declared] {
            try Deadline(seconds: 5).wait("the key") { try gateway.call(key: key).status == 200 }
        }
        try gateway.rewriteConfiguration { $0.replacing(both, with: one) }
        try gateway.reload(to: 3)
        for key in [stored, declared] { #expect(try gateway.call(key: key).status == 401) }
        #expect(try gateway.call(key: .enterprise).status == 200)
    }

    @Test("a file that is not good changes nothing, and log and metric say so")
    func invalid() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        try gateway.rewriteConfiguration { $0.replacing("upstream: main", with: "upstream: mian") }
        gateway.child.signal(SIGHUP)
        try Deadline(seconds: 5).wait("the refusal") {
            try gateway.metric("gateway_config_reload_success") == 0
        }
        try Deadline(seconds: 5).wait("the reason") { gateway.log.contains("nothing has changed") }
        #expect(gateway.log.contains("unknown upstream \"mian\" (did you mean \"main\"?)"))
        #expect(try gateway.call().status == 200)
        #expect(try gateway.metric("gateway_config_generation") == 1)
        #expect(try gateway.metric("gateway_config_reloads_total{result=\"refused\"}") == 1)
        try gateway.rewriteConfiguration { $0.replacing("upstream: mian", with: "upstream: main") }
        try gateway.reload(to: 2)
        #expect(try gateway.metric("gateway_config_reload_success") == 1)
    }

    @Test("windows, counters and warm connections outlive a reload, and a changed tier acts on the next call")
    func carriedOver() throws {
        let upstream = try Upstream()
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        func call() throws -> Response {
            try client.send(Gateway.request(key: .standard))
            return try client.response()
        }
        for _ in 0..<100 { #expect(try call().status == 200) }
        #expect(try call().status == 429)
        let counted =
            "gateway_requests_total{route=\"/api/**\",method=\"GET\",code=\"200\",tier=\"standard\"}"
        #expect(try gateway.metric(counted) == 100)
        try gateway.reload(to: 2)
        #expect(try call().status == 429)
        // Another name before it and another order: numbers go with names.
        try gateway.rewriteConfiguration {
            $0.replacing("  standard:   { limits: [100/minute] }\n", with: "")
                .replacing(
                    "tiers:\n",
                    with: "tiers:\n  extra: { limits: [1/minute] }\n  standard: { limits: [150/minute] }\n"
                )
                .replacing("routes:\n", with: "routes:\n  - { path: /first, upstream: main }\n")
        }
        try gateway.reload(to: 3)
        for _ in 0..<50 { #expect(try call().status == 200) }
        let last = try call()
        #expect(last.status == 429)
        #expect(last["RateLimit-Policy"] == "\"standard\";q=150;w=60")
        #expect(try gateway.metric(counted) == 150)
        #expect(upstream.connectionCount == 1)
    }

    @Test("declared keys come, change and go with the file")
    func declaredKeys() throws {
        let gateway = try Gateway(Setup(try Upstream()).with { $0.keys = [.standard, .enterprise] })
        #expect(try gateway.call(key: .pro).status == 401)
        #expect(try gateway.call(key: .standard).status == 200)
        let digest = sha256Hexadecimal(TestKey.standard.secret)
        try gateway.rewriteConfiguration {
            $0.replacing(digest, with: sha256Hexadecimal(TestKey.pro.secret))
        }
        try gateway.reload(to: 2)
        #expect(try gateway.call(key: .pro).status == 200)
        #expect(try gateway.call(key: .standard).status == 401)
        #expect(try gateway.call().status == 200)
    }

    @Test("a changed pair of certificate files is served by itself; a pair that does not fit is not")
    func certificates() throws {
        let (main, other) = (try Certificate.shared.get(), try Certificate.other.get())
        let folder = try TemporaryFolder()
        // As mounted secrets change: a symbolic link that all paths go through is swapped.
        for (name, pair) in [("one", main), ("two", other)] {
            try FileManager.default.createDirectory(
                atPath: folder.path(name), withIntermediateDirectories: true)
            try FileManager.default.copyItem(atPath: pair.chainPath, toPath: folder.path("\(name)/chain"))
            try FileManager.default.copyItem(atPath: pair.keyPath, toPath: folder.path("\(name)/key"))
        }
        func link(to name: String) throws {
            try? FileManager.default.removeItem(atPath: folder.path("next"))
            try FileManager.default.createSymbolicLink(
                atPath: folder.path("next"), withDestinationPath: name)
            #expect(unsafe rename(folder.path("next"), folder.path("now")) == 0)
        }
        try link(to: "one")
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.https =
                    "certificates: [{ chain: \"\(folder.path("now/chain"))\", "
                    + "private_key: \"\(folder.path("now/key"))\" }]"
            })
        let before = try gateway.connect()
        try before.send(Gateway.request())
        #expect(try before.response().status == 200)
        try link(to: "two")
        try Deadline(seconds: 10).wait("the new certificate") {
            try gateway.metric("gateway_config_generation") == 2
        }
        let after = try gateway.connect(
            "-CAfile", other.chainPath, "-verify_return_error", serverName: "other.test")
        try after.send(Gateway.request())
        #expect(try after.response().status == 200)
        try before.send(Gateway.request())
        #expect(try before.response().status == 200)
        let expiry = "gateway_tls_certificate_expiry_timestamp_seconds{subject=\"other.test\"}"
        #expect(try gateway.metric(expiry) != nil)
        // The chain of one, the key of the other.
        try FileManager.default.removeItem(atPath: folder.path("two/chain"))
        try FileManager.default.copyItem(atPath: main.chainPath, toPath: folder.path("two/chain"))
        try Deadline(seconds: 10).wait("the refusal") {
            try gateway.metric("gateway_config_reload_success") == 0
        }
        try Deadline(seconds: 10).wait("the reason") {
            gateway.log.contains("does not belong to the certificate")
        }
        let still = try gateway.connect(
            "-CAfile", other.chainPath, "-verify_return_error", serverName: "other.test")
        try still.send(Gateway.request())
        #expect(try still.response().status == 200)
    }

    @Test("the refusing port comes and goes, and what a process keeps is said")
    func addresses() throws {
        let gateway = try Gateway(Setup(try Upstream()).with { $0.plaintext = nil })
        let plain = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        try gateway.rewriteConfiguration {
            $0.replacing(
                "admin:\n", with: "  plaintext: { address: \"127.0.0.1:\(gateway.plaintextPort)\" }\nadmin:\n"
            ).replacing("workers: 1", with: "workers: 2")
        }
        try gateway.reload(to: 2)
        #expect(try PlainClient.exchange(port: gateway.plaintextPort, plain).status == 426)
        #expect(gateway.log.contains("workers stays as it was until the process is replaced (SIGUSR2)"))
        try gateway.rewriteConfiguration {
            $0.replacing("  plaintext: { address: \"127.0.0.1:\(gateway.plaintextPort)\" }\n", with: "")
        }
        try gateway.reload(to: 3)
        #expect((try? PlainClient(port: gateway.plaintextPort)) == nil)
        #expect(try gateway.call().status == 200)
    }

    @Test("what a process keeps is shown as in force, and admin tokens change beside an address that stays")
    func shownInForce() throws {
        let folder = try TemporaryFolder()
        let (old, new) = ("first-0d9f3c51b7e24a68", "second-8b16e04cfa7d3952")
        let tokens = (try folder.write("old", "\(old)\n"), try folder.write("new", "\(new)\n"))
        let gateway = try Gateway(
            Setup(try Upstream()).with { $0.admin += "token_file: \"\(tokens.0)\"\n" })
        let other = try Ports.free()
        try gateway.rewriteConfiguration {
            $0.replacing("workers: 1", with: "workers: 3").replacing(tokens.0, with: tokens.1)
                .replacing("127.0.0.1:\(gateway.adminPort)", with: "127.0.0.1:\(other)")
        }
        try gateway.reload(to: 2)
        let shown = try gateway.admin("/v1/config", token: new)
        #expect(shown.status == 200)
        let settings = try #require(try shown.object()["settings"] as? [String: Any])
        #expect("\(settings["workers"] ?? "")" == "1")
        #expect("\(settings["admin.address"] ?? "")" == "127.0.0.1:\(gateway.adminPort)")
        #expect(settings["admin.token_file"] as? String == tokens.1)
        #expect(try gateway.admin("/v1/config", token: old).status == 401)
    }

    @Test("upstreams come and go: nobody's call reaches another's endpoint")
    func upstreams() throws {
        let (first, second) = (
            try Upstream(Upstream.answer("first")), try Upstream(Upstream.answer("second"))
        )
        let gateway = try Gateway(Setup(first))
        let callers = Callers(2, of: gateway, key: .enterprise)
        try callers.wait(for: 20)
        for generation in 2..<12 {
            try gateway.rewriteConfiguration { text in
                generation % 2 == 0
                    ? text.replacing(first.endpoint, with: second.endpoint)
                    : text.replacing(second.endpoint, with: first.endpoint)
            }
            try gateway.reload(to: generation)
            let wanted = generation % 2 == 0 ? "second" : "first"
            #expect(try gateway.call().text == wanted)
            try callers.wait(for: 10)
        }
        let calls = try callers.stop()
        #expect(calls.allSatisfy { $0.status == 200 })
    }

    @Test("a WebSocket and an event stream outlive reloads")
    func streams() throws {
        let gate = Collected<Int>()
        let gateway = try Gateway(Setup(try Upstream(Self.service(until: gate))))
        let streams = try Streams(gateway)
        for generation in 2..<6 {
            // The route that both came by goes and comes.
            try gateway.rewriteConfiguration {
                generation % 2 == 0
                    ? $0.replacing("path: /api/**", with: "path: /other/**")
                    : $0.replacing("path: /other/**", with: "path: /api/**")
            }
            try gateway.reload(to: generation)
            try streams.exchangeOne()
        }
        gate.append(contentsOf: [1])
        try streams.finish()
    }

    /// `RELOADS` in the environment asks for more than the few that every run makes.
    @Test("reloads under load, changed certificates and bad files among them: no call fails, nothing grows")
    func many() throws {
        let count = ProcessInfo.processInfo.environment["RELOADS"].flatMap { Int($0) } ?? 100
        let (main, other) = (try Certificate.shared.get(), try Certificate.other.get())
        let folder = try TemporaryFolder()
        let (chain, key) = (folder.path("chain"), folder.path("key"))
        func install(_ pair: Certificate) throws {
            try folder.write("chain", try String(contentsOfFile: pair.chainPath, encoding: .utf8))
            try folder.write("key", try String(contentsOfFile: pair.keyPath, encoding: .utf8))
        }
        try install(main)
        let gate = Collected<Int>()
        let gateway = try Gateway(
            Setup(try Upstream(Self.service(until: gate))).with {
                $0.workers = 2
                $0.https = "certificates: [{ chain: \"\(chain)\", private_key: \"\(key)\" }]"
            })
        let streams = try Streams(gateway)
        let callers = Callers(4, of: gateway, key: .enterprise)
        try callers.wait(for: 200)
        var generation = 1
        var refused = 0
        var settled: (resident: Double, descriptors: Double)?
        for round in 0..<count {
            if round == count / 4 { settled = try usage(gateway) }
            if round % 10 == 5 {
                try gateway.rewriteConfiguration { "\($0)nonsense: true\n" }
                refused += 1
                gateway.child.signal(SIGHUP)
                try Deadline(seconds: 10).wait("the refusal") {
                    try gateway.metric("gateway_config_reloads_total{result=\"refused\"}") ?? 0
                        >= Double(refused)
                }
                try gateway.rewriteConfiguration { $0.replacing("nonsense: true\n", with: "") }
                continue
            }
            if round % 10 == 0 { try install(round % 20 == 0 ? other : main) }
            generation += 1
            gateway.child.signal(SIGHUP)
            try Deadline(seconds: 10).wait("reload \(round)") {
                try gateway.metric("gateway_config_generation") ?? 0 >= Double(generation)
            }
            generation = Int(try gateway.metric("gateway_config_generation") ?? 0)
            if round % 10 == 1 { try streams.exchangeOne() }
        }
        let calls = try callers.stop()
        #expect(calls.count { $0.status != 200 } == 0, "of \(calls.count) calls")
        gate.append(contentsOf: [1])
        try streams.finish()
        let before = try #require(settled)
        let after = try usage(gateway)
        // A quarter of a hundred reloads is not enough for an allocator to have settled.
        let growth = count < 1_000 ? 1.25 : 1.05
        #expect(
            Gateway.isSanitized || after.resident < before.resident * growth,
            "\(before.resident) -> \(after.resident) bytes")
        #expect(after.descriptors <= before.descriptors + 8)
    }

    private func usage(_ gateway: Gateway) throws -> (resident: Double, descriptors: Double) {
        (
            try gateway.metric("process_resident_memory_bytes") ?? 0,
            try gateway.metric("process_open_fds") ?? 0
        )
    }
}

extension ReloadTests {
    /// Echoes on a WebSocket, an event stream that goes on until it is told to end, and short answers.
    private static func service(until gate: Collected<Int>) -> Upstream.Script {
        { exchange in
            switch exchange.request.target {
            case "/api/socket": try TunnelTests.echo(exchange)
            case "/api/events":
                try exchange.receiveBody()
                try exchange.send(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                        + "Transfer-Encoding: chunked\r\n\r\n5\r\none\n\n\r\n")
                try Deadline(seconds: 600).wait("the reloads") { !gate.values.isEmpty }
                try exchange.send("5\r\ntwo\n\n\r\n0\r\n\r\n")
            default: try Upstream.answer("ok")(exchange)
            }
        }
    }

    /// A WebSocket and an event stream, open from the first to the last reload.
    private struct Streams {
        let socket: TLSClient
        let events: TLSClient

        init(_ gateway: Gateway) throws {
            socket = try gateway.connect()
            try socket.send(Gateway.request("/api/socket", fields: TunnelTests.upgrade))
            #expect(try socket.head().startLine.contains("101"))
            #expect(try socket.take(6) == Array("hello;".utf8))
            events = try gateway.connect()
            try events.send(Gateway.request("/api/events"))
            #expect(try events.head().startLine.contains("200"))
            #expect(try events.take(10) == Array("5\r\none\n\n\r\n".utf8))
        }

        func exchangeOne() throws {
            try socket.send("one.")
            #expect(try socket.take(4) == Array("one.".utf8))
        }

        func finish() throws {
            #expect(try events.take(15) == Array("5\r\ntwo\n\n\r\n0\r\n\r\n".utf8))
            try socket.send("bye.")
            #expect(try socket.take(4) == Array("bye.".utf8))
        }
    }
}

extension Gateway {
    /// Has the configuration read again, and waits until every worker has gone over to it.
    func reload(to generation: Int) throws {
        child.signal(SIGHUP)
        try Deadline(seconds: 10).wait("configuration \(generation). The gateway said: \(log)") {
            try metric("gateway_config_generation") == Double(generation)
        }
    }
}
