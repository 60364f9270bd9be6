import Foundation
import TestSupport
import Testing

/// Start, configuration, drain.
@Suite("Life of the process", .serialized)
struct LifeTests {
    @Test("a call under way outlives SIGTERM, and the exit is clean")
    func drain() throws {
        let gate = Collected<Int>()
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            try Deadline(seconds: 10).wait("the drain") { !gate.values.isEmpty }
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        }
        let gateway = try Gateway(Setup(upstream))
        let client = try gateway.connect()
        try client.send(Gateway.request())
        _ = try upstream.latest()
        gateway.child.signal(SIGTERM)
        try Deadline(seconds: 5).wait("the listener to close") {
            (try? PlainClient(port: gateway.httpsPort)) == nil
        }
        #expect(try gateway.admin("/readyz").status == 503)
        gate.append(contentsOf: [1])
        let response = try client.response()
        #expect(response.text == "ok")
        #expect(try gateway.child.wait() == .exited(0))
    }

    @Test("SIGTERM under load: callers that retry nothing lose no call, and the exit is clean")
    func drainUnderLoad() throws {
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.workers = 2
                $0.timeouts = "drain_delay: 300ms, drain: 10s"
            })
        let callers = Callers(8, of: gateway, key: .enterprise, endsWhenTold: true)
        try callers.wait(for: 200)
        gateway.child.signal(SIGTERM)
        #expect(try gateway.child.wait() == .exited(0))
        let calls = try callers.stop()
        #expect(calls.count { $0.status != 200 } == 0, "of \(calls.count)")
    }

    /// A gateway with one account that Redis limits.
    private func limited(_ redis: RedisServer, port: UInt16, _ extra: String = "") throws -> Gateway {
        try redis.store(Self.leaver.secret, ["tier": "pro", "account": "leaver", "limits": "30000/hour"])
        return try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.store = "url: \"redis://127.0.0.1:\(port)\"\n\(extra)"
                $0.workers = 2
            })
    }

    private static let leaver = TestKey(secret: "sk_live_leaver", id: "", account: "", tier: "")
    private static let leaversWindow = "gateway:limit:{leaver}:3600s"

    @Test("what is on lease goes back at the end, and Redis holds what was let in", arguments: [true, false])
    func leasesAtTheEnd(_ isUpgraded: Bool) throws {
        let redis = try RedisServer()
        let gateway = try limited(redis, port: redis.port)
        let callers = Callers(4, of: gateway, key: Self.leaver, endsWhenTold: true)
        try callers.wait(for: 200)
        try Deadline(seconds: 5).wait("a lease") {
            try redis.command("LINDEX", Self.leaversWindow, "0").contains(";")
        }
        if isUpgraded { try gateway.upgrade() } else { gateway.child.signal(SIGTERM) }
        let calls = try callers.stop()
        if !isUpgraded { #expect(try gateway.child.wait() == .exited(0)) }
        #expect(calls.count { $0.status != 200 } == 0, "of \(calls.count)")
        #expect(try redis.command("LINDEX", Self.leaversWindow, "0") == "r:\(calls.count)")
        for process in try gateway.processes() { kill(process, SIGTERM) }
    }

    @Test("what was let in without asking Redis is told at the end, while a new connection proves itself")
    func unaskedAtTheEnd() throws {
        let redis = try RedisServer()
        let relay = try Relay(to: redis.port)
        let gateway = try limited(redis, port: relay.port, "timeout: 5s")
        #expect(try gateway.call(key: Self.leaver).status == 200)
        relay.delay(milliseconds: 300)
        try redis.command("CLIENT", "KILL", "TYPE", "normal")
        try Deadline(seconds: 5).wait("the outage") { try gateway.metric("gateway_store_up") == 0 }
        try Deadline(seconds: 5).wait("new connections") {
            try redis.command("CLIENT", "LIST").matches(of: #/name=gateway /#).count == 2
        }
        for _ in 0..<5 { #expect(try gateway.call(key: Self.leaver).status == 200) }
        gateway.child.signal(SIGTERM)
        #expect(try gateway.child.wait() == .exited(0))
        #expect(try redis.command("LINDEX", Self.leaversWindow, "0").hasPrefix("r:6"))
    }

    @Test("a Redis that answers nothing holds up no end that a second signal asks for")
    func deafStoreAtTheEnd() throws {
        let redis = try RedisServer()
        let gateway = try limited(redis, port: redis.port, "timeout: 10s")
        let callers = Callers(4, of: gateway, key: Self.leaver, endsWhenTold: true)
        try callers.wait(for: 200)
        redis.freeze()
        gateway.child.signal(SIGTERM)
        try Deadline(seconds: 2).wait("the drain") { gateway.log.contains("draining") }
        gateway.child.signal(SIGTERM)
        try Deadline(seconds: 3).wait("the end") { !gateway.child.isRunning }
        _ = try callers.stop()
    }

    @Test(
        "SIGTERM under load over HTTP/2: callers that retry nothing lose no call, and the exit is clean",
        .enabled(if: Clients.areInstalled, "`make test` installs the clients"))
    func drainUnderLoadOverHTTP2() throws {
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.workers = 2
                $0.timeouts = "drain_delay: 300ms, drain: 10s"
            })
        let callers = try StreamCallers(gateway, connections: 4, underWay: 8, thenGoOn: false)
        gateway.child.signal(SIGTERM)
        #expect(try gateway.child.wait() == .exited(0))
        let outcome = try callers.outcome()
        #expect(outcome.failed.isEmpty, "of \(outcome.calls): \(outcome.failed.prefix(5))")
        #expect(outcome.calls > 400 && outcome.rounds == 4)
    }

    @Test("calls that take longer than the drain have their lines in the log, which say why they were cut")
    func cutCalls() throws {
        let gate = Collected<Int>()
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            if exchange.request.target == "/api/begun" {
                try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
            }
            try Deadline(seconds: 20).wait("the end") { !gate.values.isEmpty }
        }
        defer { gate.append(contentsOf: [1]) }
        let gateway = try Gateway(
            Setup(upstream).with { $0.timeouts = "drain_delay: 0s, drain: 500ms" })
        let silent = try gateway.connect()
        try silent.send(Gateway.request("/api/silent"))
        let begun = try gateway.connect()
        try begun.send(Gateway.request("/api/begun"))
        #expect(try begun.head().startLine.contains("200"))
        let idle = try gateway.connect()
        try Deadline(seconds: 5).wait("the calls") { upstream.requests.count == 2 }
        gateway.child.signal(SIGTERM)
        #expect(try gateway.child.wait() == .exited(0))
        #expect(idle.isClosedByGateway())
        let lines = try gateway.accessLog.map {
            try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
        }
        #expect(lines.count == 2)
        for (path, status) in [("/api/silent", 503), ("/api/begun", 200)] {
            let line = try #require(lines.first { $0["path"] as? String == path })
            #expect(line["reason"] as? String == "draining" && line["status"] as? Int == status)
        }
    }

    @Test("calls over HTTP/2 that take longer than the drain have their lines in the log")
    func cutStreams() throws {
        let gate = Collected<Int>()
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            try Deadline(seconds: 20).wait("the end") { !gate.values.isEmpty }
        }
        defer { gate.append(contentsOf: [1]) }
        let gateway = try Gateway(
            Setup(upstream).with { $0.timeouts = "drain_delay: 0s, drain: 500ms" })
        let curl = try ChildProcess(
            "curl",
            [
                "-sS", "--http2", "--parallel", "--cacert", try Certificate.shared.get().chainPath,
                "-H", "Authorization: Bearer \(TestKey.enterprise.secret)",
                "https://localhost:\(gateway.httpsPort)/api/{1,2,3}",
            ])
        try Deadline(seconds: 5).wait("the calls") { upstream.requests.count == 3 }
        gateway.child.signal(SIGTERM)
        #expect(try gateway.child.wait() == .exited(0))
        #expect(try curl.wait() != .exited(0))
        #expect(gateway.accessLog.count == 3)
        #expect(gateway.accessLog.allSatisfy { $0.contains("\"reason\":\"draining\"") })
    }

    @Test(
        "a second SIGTERM ends it although a worker hangs",
        .enabled(if: geteuid() == 0, "only root may stop one of its threads"))
    func secondSignal() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let tasks = "/proc/\(gateway.child.processID)/task"
        var worker = ""
        try Deadline(seconds: 10).wait("the worker's name") {
            worker =
                try FileManager.default.contentsOfDirectory(atPath: tasks).first {
                    try String(contentsOfFile: "\(tasks)/\($0)/comm", encoding: .utf8) == "worker-0\n"
                } ?? ""
            return !worker.isEmpty
        }
        // Held for ten minutes as it goes to wait for its next event.
        let calls = "epoll_wait,epoll_pwait"
        let tracer = try ChildProcess(
            "strace",
            ["-p", worker, "-e", "trace=\(calls)", "-e", "inject=\(calls):delay_enter=600000000"])
        defer { tracer.end() }
        try Deadline(seconds: 10).wait("the worker to hang") {
            _ = try PlainClient(port: gateway.httpsPort)
            return try String(contentsOfFile: "\(tasks)/\(worker)/status", encoding: .utf8)
                .contains("State:\tt")
        }
        gateway.child.signal(SIGTERM)
        try Deadline(seconds: 5).wait("the drain") { gateway.log.contains("draining") }
        gateway.child.signal(SIGTERM)
        // The thread that is held is nobody's to collect but the tracer's: the process is not gone at once.
        try Deadline(seconds: 10).wait("the end") {
            try String(contentsOfFile: "/proc/\(gateway.child.processID)/status", encoding: .utf8)
                .contains("State:\tZ")
        }
        tracer.end()
        #expect(try gateway.child.wait() == .exited(0))
        #expect(gateway.log.contains("second signal: ending at once"))
    }

    private static let namespacesAreAllowed =
        (try? ChildProcess.run("unshare", ["-rp", "--fork", "true"]))?.status == 0

    @Test(
        "as the first process of a container it takes its signals, collects orphans, and is not replaced",
        .enabled(if: namespacesAreAllowed, "no process may have numbers of its own here"))
    func firstProcess() throws {
        let folder = try TemporaryFolder()
        let pipe = folder.path("pipe")
        #expect(unsafe mkfifo(pipe, 0o600) == 0)
        // A shell leaves a child behind that waits for the pipe; its end is the first process's to notice.
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.launcher = [
                    "unshare", "-rp", "--fork", "bash", "-c",
                    "sh -c 'cat \"\(pipe)\" &' && exec \"$0\" \"$@\"",
                ]
            })
        let process = try #require(try gateway.processes().first)
        func orphans() throws -> Int {
            try FileManager.default.contentsOfDirectory(atPath: "/proc").count { number in
                let status = try? String(contentsOfFile: "/proc/\(number)/status", encoding: .utf8)
                return status?.contains("PPid:\t\(process)\n") == true
            }
        }
        #expect(try orphans() == 1)
        try "end".write(toFile: pipe, atomically: false, encoding: .utf8)
        try Deadline(seconds: 5).wait("the orphan's end") { try orphans() == 0 }
        kill(process, SIGUSR2)
        try Deadline(seconds: 5).wait("the refusal") {
            gateway.log.contains("the first process of a container cannot be replaced")
        }
        kill(process, SIGHUP)
        try Deadline(seconds: 5).wait("the reload") {
            try gateway.metric("gateway_config_generation") == 2
        }
        #expect(try gateway.call().status == 200)
        kill(process, SIGTERM)
        #expect(try gateway.child.wait() == .exited(0))
    }

    @Test("all problems of a configuration come together, each with its place, and the status is 78")
    func problems() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        try gateway.rewriteConfiguration {
            $0.replacing("tier: standard", with: "tier: standart").replacing(
                "upstream: main", with: "upstream: mian"
            )
            .replacing("workers: 1", with: "wrokers: 1")
        }
        let outcome = try ChildProcess.run(
            try Gateway.binary(), ["check", "--config", gateway.configurationPath])
        #expect(outcome.ending == .exited(78))
        #expect(outcome.error.contains("unknown tier \"standart\" (did you mean \"standard\"?)"))
        #expect(outcome.error.contains("unknown upstream \"mian\" (did you mean \"main\"?)"))
        #expect(outcome.error.contains("unknown key \"wrokers\" (did you mean \"workers\"?)"))
        for line in outcome.error.split(separator: "\n") {
            #expect(line.firstMatch(of: #/^gateway\.conf:\d+:\d+: /#) != nil, "\(line)")
        }
    }

    @Test("a port that is taken is one sentence")
    func portTaken() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let outcome = try ChildProcess.run(
            try Gateway.binary(), ["run", "--config", gateway.configurationPath])
        #expect(outcome.ending != .exited(0))
        #expect(outcome.error.contains("another process uses this port"))
    }

    @Test("a second gateway with an admin address of its own is not given half of the callers")
    func portShared() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let other = try Ports.free()
        try gateway.rewriteConfiguration {
            $0.replacing("127.0.0.1:\(gateway.adminPort)", with: "127.0.0.1:\(other)")
        }
        let outcome = try ChildProcess.run(
            try Gateway.binary(), ["run", "--config", gateway.configurationPath])
        #expect(outcome.ending == .exited(69))
        #expect(
            outcome.error.contains("cannot listen on 127.0.0.1:\(gateway.httpsPort): another process uses"))
    }

    @Test("a demo that is ended drains, and takes its files along")
    func demoEnds() throws {
        let folder = try TemporaryFolder()
        let files = folder.path("files")
        try FileManager.default.createDirectory(atPath: files, withIntermediateDirectories: true)
        let demo = try ChildProcess(
            try Gateway.binary(), ["demo", "--port", "\(try Ports.free())"], environment: ["TMPDIR": files],
            output: .file(folder.path("out")), error: .file(folder.path("err")))
        try Deadline(seconds: 40).wait("the demo") { try folder.read("out").contains("curl") }
        #expect(try FileManager.default.contentsOfDirectory(atPath: files).count == 1)
        demo.signal(SIGTERM)
        #expect(try demo.wait(within: 30) == .exited(0))
        #expect(try FileManager.default.contentsOfDirectory(atPath: files).isEmpty)
    }

    @Test("a certificate and a key that do not belong together are named")
    func mismatch() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let other = try Certificate.other.get()
        let main = try Certificate.shared.get()
        try gateway.rewriteConfiguration { $0.replacing(main.keyPath, with: other.keyPath) }
        let outcome = try ChildProcess.run(
            try Gateway.binary(), ["check", "--config", gateway.configurationPath])
        #expect(outcome.ending == .exited(78))
        #expect(outcome.error.contains(other.keyPath) || outcome.error.contains(main.chainPath))
    }

    @Test("keys are created, listed, shown and revoked, and the secret is seen once")
    func keys() throws {
        let redis = try RedisServer()
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.store = "url: \"\(redis.url)\""
            })
        func keys(_ arguments: String...) throws -> ChildProcess.Outcome {
            try ChildProcess.run(
                try Gateway.binary(), ["keys"] + arguments + ["--config", gateway.configurationPath])
        }
        let created = try keys(
            "create", "--tier", "pro", "--account", "acme", "--scope", "a:b", "--output", "json")
        #expect(created.ending == .exited(0))
        let object = try JSONSerialization.jsonObject(with: Data(created.output.utf8)) as? [String: Any]
        let secret = try #require(object?["key"] as? String)
        let id = try #require(object?["id"] as? String)
        let caller = TestKey(secret: secret, id: id, account: "", tier: "")
        #expect(try gateway.call(key: caller).status == 200)
        let list = try keys("list")
        #expect(list.output.contains(id) && !list.output.contains(secret))
        #expect(try keys("show", id).output.contains("acme"))
        #expect(try keys("revoke", id, "--reason", "leak").ending == .exited(0))
        try Deadline(seconds: 1).wait("the revocation") { try gateway.call(key: caller).status == 401 }
        #expect(try keys("show", "key_none").ending == .exited(1))
        #expect(try keys("create", "--tier", "nope").ending == .exited(1))
        #expect(try redis.command("XLEN", "gateway:audit") == "2")
        redis.kill()
        #expect(try keys("list").ending == .exited(69))
    }

    @Test("the access log has a line a call, without secrets")
    func accessLog() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        _ = try gateway.call("/api/x?token=secret", key: .pro)
        try Deadline(seconds: 5).wait("the line") { gateway.accessLog.count == 1 }
        let line = gateway.accessLog[0]
        let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
        #expect(object?["status"] as? Int == 200)
        #expect(object?["key_id"] as? String == "key_pro")
        #expect(object?["account"] as? String == "globex")
        #expect(object?["limit"] as? Int == 1_000)
        #expect(object?["remaining"] as? Int == 999)
        #expect(object?["client"] as? String == "127.0.0.1")
        #expect(object?["path"] as? String == "/api/x")
        #expect(!line.contains(TestKey.pro.secret) && !line.contains("token"))
    }

    @Test("SNI chooses the certificate, and strict_host refuses a host it does not cover")
    func serverNames() throws {
        let main = try Certificate.shared.get()
        let other = try Certificate.other.get()
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.https = """
                    strict_host: true
                    certificates:
                      - { chain: "\(main.chainPath)", private_key: "\(main.keyPath)" }
                      - { chain: "\(other.chainPath)", private_key: "\(other.keyPath)" }
                    """
            })
        #expect(try gateway.call().status == 200)
        let client = try gateway.connect(
            "-CAfile", other.chainPath, "-verify_return_error", serverName: "other.test")
        try client.send(Gateway.request())
        #expect(try client.response().status == 421)
        try client.send(Gateway.request().replacing("Host: localhost", with: "Host: other.test:8443"))
        #expect(try client.response().status == 200)
    }

    @Test("with a client authority only callers with its certificate get in")
    func clientCertificates() throws {
        let main = try Certificate.shared.get()
        let other = try Certificate.other.get()
        let gateway = try Gateway(
            Setup(try Upstream()).with { $0.https = "client_ca: \"\(other.chainPath)\"" })
        let without = try gateway.connect()
        try? without.send(Gateway.request())
        #expect(without.isClosedByGateway())
        let wrong = try gateway.connect("-cert", main.chainPath, "-key", main.keyPath)
        try? wrong.send(Gateway.request())
        #expect(wrong.isClosedByGateway())
        let right = try gateway.connect("-cert", other.chainPath, "-key", other.keyPath)
        try right.send(Gateway.request())
        #expect(try right.response().status == 200)
    }

    @Test(
        "a session from before a client authority was asked for, or of another one's client, is not resumed",
        arguments: ["-tls1_2", "-tls1_3"])
    func sessionsOfOtherAuthorities(_ version: String) throws {
        let (main, other) = (try Certificate.shared.get(), try Certificate.other.get())
        let folder = try TemporaryFolder()
        let gateway = try Gateway(Setup(try Upstream()))
        func isServed(_ options: String...) throws -> Bool {
            try gateway.callOnce([version] + options).contains("200 OK")
        }
        func resumed() throws -> Double {
            try gateway.metricSum("gateway_tls_handshakes_total", holding: "resumed=\"true\"")
        }
        let authority = "client_ca: \"\(folder.path("ca.pem"))\""
        #expect(try isServed("-sess_out", folder.path("before")))
        #expect(try isServed("-sess_in", folder.path("before")))
        #expect(try resumed() == 1)
        // Its own certificate is the client's as well: what matters is who has signed it.
        try folder.write("ca.pem", try String(contentsOfFile: main.chainPath, encoding: .utf8))
        try gateway.rewriteConfiguration {
            $0.replacing("certificates:", with: "\(authority)\n    certificates:")
        }
        try gateway.reload(to: 2)
        #expect(try !isServed("-sess_in", folder.path("before")))
        let identity = "-cert \(main.chainPath) -key \(main.keyPath)"
        #expect(try isServed(identity, "-sess_out", folder.path("main")))
        #expect(try isServed("-sess_in", folder.path("main")))
        #expect(try resumed() == 2)
        try folder.write("ca.pem", try String(contentsOfFile: other.chainPath, encoding: .utf8))
        try gateway.reload(to: 3)
        #expect(try !isServed("-sess_in", folder.path("main")))
        #expect(try resumed() == 2)
    }

    @Test("without file descriptors callers wait, nothing spins, and the log says what to do")
    func fewDescriptors() throws {
        let closing = Upstream.respond("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", closes: true)
        let gateway = try Gateway(
            Setup(try Upstream(closing), try Upstream(closing)).with {
                $0.launcher = ["bash", "-c", "ulimit -n 300 && exec \"$0\" \"$@\""]
            })
        let early = try gateway.connect()
        try early.send(Gateway.request())
        #expect(try early.response().status == 200)
        try Deadline(seconds: 5).wait("the warning") { gateway.log.contains("300 open files are allowed") }
        var callers: [PlainClient] = []
        for _ in 0..<320 { callers.append(try PlainClient(port: gateway.httpsPort)) }
        try Deadline(seconds: 5).wait("the log's advice") {
            gateway.log.contains("no file descriptors left: raise the limit (ulimit -n, LimitNOFILE)")
        }
        // A listener that cannot accept stays readable: a loop that watched it would use a whole core.
        let before = try gateway.child.cpuSeconds()
        let end = ContinuousClock.now + .seconds(1)
        try Deadline(seconds: 5).wait("a second to measure") { ContinuousClock.now >= end }
        #expect(try gateway.child.cpuSeconds() - before < 0.3)
        // That no endpoint can be reached is none's fault.
        for _ in 0..<12 {
            try early.send(Gateway.request())
            let refused = try early.response()
            #expect(refused.status == 503 && refused["Retry-After"] == "1")
        }
        callers = []
        try early.send(Gateway.request())
        #expect(try early.response().status == 200)
        #expect(try gateway.call().status == 200)
    }

    @Test("a caller that offers only protocols we do not speak is refused in the handshake")
    func protocols() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let client = try gateway.connect("-alpn", "spdy/3")
        #expect(client.isClosedByGateway())
        let old = try gateway.connect("-tls1_1")
        #expect(old.isClosedByGateway())
        let new = try gateway.connect("-tls1_2", "-alpn", "http/1.1")
        try new.send(Gateway.request())
        #expect(try new.response().status == 200)
    }
}
