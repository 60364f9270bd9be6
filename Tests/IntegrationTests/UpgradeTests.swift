import Foundation
import TestSupport
import Testing

/// One program takes over from another, and systemd's side of it.
@Suite("Upgrade and service manager", .serialized)
struct UpgradeTests {
    /// `UPGRADES` in the environment asks for more than the few that every run makes.
    @Test("programs take over under load: no connection is refused or reset, no call fails")
    func takeOver() throws {
        let count = ProcessInfo.processInfo.environment["UPGRADES"].flatMap { Int($0) } ?? 5
        // Each program has to ask for the key anew, and so for its connection to Redis.
        let redis = try RedisServer()
        let key = TestKey(secret: "sk_live_upgraded", id: "", account: "", tier: "")
        try redis.store(key.secret, ["tier": "enterprise", "account": "upgraded"])
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.store = "url: \"\(redis.url)\""
                $0.workers = 2
            })
        let kept = Callers(3, of: gateway, key: key)
        // Connects for every call: the first to be refused when a socket goes.
        let fresh = Callers(3, of: gateway, key: key, reconnects: true)
        try kept.wait(for: 30)
        var present = try gateway.processes()
        #expect(present.count == 1)
        for round in 1...count {
            kill(present[0], SIGUSR2)
            let before = present
            try Deadline(seconds: 30).wait("upgrade \(round). The gateway said: \(gateway.log)") {
                present = try gateway.processes()
                return present.count == 1 && present != before
            }
            try fresh.wait(for: 5)
        }
        // A service manager supervises its own children alone: the last program is one as the first was.
        let status = try String(contentsOfFile: "/proc/\(present[0])/status", encoding: .utf8)
        #expect(status.contains("PPid:\t\(ProcessInfo.processInfo.processIdentifier)\n"))
        let calls = try kept.stop() + fresh.stop()
        #expect(calls.count { $0.status != 200 } == 0, "of \(calls.count) calls")
        #expect(try gateway.admin("/readyz").status == 200)
        for process in present { kill(process, SIGTERM) }
        try Deadline(seconds: 20).wait("the end") { try gateway.processes().isEmpty }
    }

    @Test(
        "programs take over under HTTP/2: no stream is lost, whoever is told to go connects anew",
        .enabled(if: Clients.areInstalled, "`make test` installs the clients"))
    func takeOverHTTP2() throws {
        let gateway = try Gateway(Setup(try Upstream()).with { $0.workers = 2 })
        let callers = try StreamCallers(gateway, connections: 3, underWay: 8, thenGoOn: true)
        for _ in 1...3 { try gateway.upgrade() }
        let outcome = try callers.stop()
        #expect(outcome.failed.isEmpty, "of \(outcome.calls): \(outcome.failed.prefix(5))")
        #expect(outcome.rounds >= 9)
        for process in try gateway.processes() { kill(process, SIGTERM) }
        try Deadline(seconds: 20).wait("the end") { try gateway.processes().isEmpty }
    }

    @Test(
        "a session resumes in the program that took over; its keys are in memory that nobody else can reach",
        arguments: ["-tls1_2", "-tls1_3"])
    func sessionsGoOn(_ version: String) throws {
        let folder = try TemporaryFolder()
        let gateway = try Gateway(Setup(try Upstream()))
        func connect(_ options: String...) throws -> String { try gateway.callOnce([version] + options) }
        #expect(try connect("-sess_out", folder.path("session")).contains("200 OK"))
        try gateway.upgrade()
        #expect(try gateway.metricSum("gateway_tls_handshakes_total", holding: "resumed=\"true\"") == 0)
        #expect(try connect("-sess_in", folder.path("session")).contains("200 OK"))
        #expect(try gateway.metricSum("gateway_tls_handshakes_total", holding: "resumed=\"true\"") == 1)
        let process = try #require(try gateway.processes().first)
        // The number of a descriptor is all that the environment has, and the descriptor itself is gone.
        let environment = try #require(FileManager.default.contents(atPath: "/proc/\(process)/environ"))
        let variables = environment.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        let secret = try #require(variables.first { $0.hasPrefix("GATEWAY_SECRET=") })
        #expect(secret.wholeMatch(of: #/GATEWAY_SECRET=\d{1,4}/#) != nil)
        let descriptors = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd")
        for number in descriptors {
            let path = "/proc/\(process)/fd/\(number)"
            let target = try? FileManager.default.destinationOfSymbolicLink(atPath: path)
            #expect(target?.contains("memfd") != true)
        }
        // One more: what was handed over is handed on.
        try gateway.upgrade()
        #expect(try connect("-sess_in", folder.path("session")).contains("200 OK"))
        #expect(try gateway.metricSum("gateway_tls_handshakes_total", holding: "resumed=\"true\"") == 1)
        for process in try gateway.processes() { kill(process, SIGTERM) }
        try Deadline(seconds: 20).wait("the end") { try gateway.processes().isEmpty }
    }

    @Test("a call under way finishes in the old process, and a program that cannot start changes nothing")
    func callUnderWay() throws {
        let gate = Collected<Int>()
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            if exchange.request.target == "/api/slow" {
                try Deadline(seconds: 20).wait("the upgrade") { !gate.values.isEmpty }
            }
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        }
        let gateway = try Gateway(Setup(upstream))
        try gateway.rewriteConfiguration { "nonsense: true\n\($0)" }
        gateway.child.signal(SIGUSR2)
        try Deadline(seconds: 10).wait("the failure") { gateway.log.contains("has not taken over") }
        #expect(try gateway.call("/api/x").status == 200)
        try gateway.rewriteConfiguration { $0.replacing("nonsense: true\n", with: "") }
        let slow = try gateway.connect()
        try slow.send(Gateway.request("/api/slow"))
        try Deadline(seconds: 5).wait("the call") { upstream.requests.contains { $0.target == "/api/slow" } }
        gateway.child.signal(SIGUSR2)
        try Deadline(seconds: 10).wait("the upgrade") { gateway.log.contains("has taken over") }
        #expect(try gateway.call("/api/x").status == 200)
        gate.append(contentsOf: [1])
        #expect(try slow.response().text == "ok")
        #expect(try gateway.child.wait() == .exited(0))
        #expect(try gateway.call("/api/x").status == 200)
        for process in try gateway.processes() { kill(process, SIGTERM) }
        try Deadline(seconds: 20).wait("the end") { try gateway.processes().isEmpty }
    }

    @Test("a client of the admin listener that keeps its connection is served by the program that took over")
    func keptAdminClients() throws {
        let gate = Collected<Int>()
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            try Deadline(seconds: 20).wait("the end") { !gate.values.isEmpty }
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        }
        let gateway = try Gateway(Setup(upstream))
        let question = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        let idle = try PlainClient(port: gateway.adminPort)
        try idle.send(question)
        #expect(try idle.response().status == 200)
        let asking = try PlainClient(port: gateway.adminPort)
        // All but the empty line; its two bytes are one character.
        try asking.send(String(question.dropLast()))
        let slow = try gateway.connect()
        try slow.send(Gateway.request())
        _ = try upstream.latest()
        // So that the half question has been read.
        #expect(try gateway.admin("/readyz").status == 200)
        gateway.child.signal(SIGUSR2)
        try Deadline(seconds: 20).wait("the upgrade") { gateway.log.contains("has taken over") }
        #expect(try idle.rest() == [])
        try asking.send("\r\n")
        #expect(try asking.response()["Connection"] == "close")
        #expect(try asking.rest() == [])
        #expect(try gateway.processes().count == 2)
        #expect(try gateway.admin("/readyz").status == 200)
        gate.append(contentsOf: [1])
        #expect(try slow.response().text == "ok")
        try Deadline(seconds: 20).wait("the end") { try gateway.processes().count == 1 }
        for process in try gateway.processes() { kill(process, SIGTERM) }
        try Deadline(seconds: 20).wait("the end") { try gateway.processes().isEmpty }
    }

    @Test("systemd's sockets are served, and it hears of readiness, reload, life and end")
    func serviceManager() throws {
        let manager = try Manager(Setup(try Upstream()))
        try manager.wait(for: "READY=1")
        // Two workers serve the one socket that there is.
        for _ in 0..<4 { #expect(try manager.gateway.call().status == 200) }
        try manager.wait(for: "WATCHDOG=1")
        try manager.signal(SIGHUP)
        try manager.wait(for: "RELOADING=1 MONOTONIC_USEC=")
        try manager.signal(SIGTERM)
        try manager.wait(for: "STOPPING=1")
        #expect(try manager.gateway.child.wait() == .exited(0))
    }

    /// One call is one worker's: the other one ends. Eight are most likely both's, who turn each at its time.
    @Test("a drain that takes longer than the watchdog waits is not taken for a hang", arguments: [1, 8])
    func watchdogWhileDraining(calls: Int) throws {
        let gate = Collected<Int>()
        let upstream = try Upstream { exchange in
            try exchange.receiveBody()
            try Deadline(seconds: 20).wait("the drain") { !gate.values.isEmpty }
            try exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        }
        let manager = try Manager(Setup(upstream))
        let clients = try (0..<calls).map { _ in try manager.gateway.connect() }
        for client in clients { try client.send(Gateway.request()) }
        try Deadline(seconds: 5).wait("the calls") { upstream.requests.count == calls }
        try manager.signal(SIGTERM)
        try manager.wait(for: "STOPPING=1")
        func signsOfLife() throws -> Int {
            try manager.said().split(separator: "STOPPING=1").last?.split(separator: "\n")
                .count { $0.contains("WATCHDOG=1") } ?? 0
        }
        // Whoever says nothing for 400 ms is killed.
        for count in stride(from: 2, through: 10, by: 2) {
            try Deadline(seconds: 1).wait("\(count) signs of life") { try signsOfLife() >= count }
        }
        gate.append(contentsOf: [1])
        for client in clients { #expect(try client.response().text == "ok") }
        #expect(try manager.gateway.child.wait() == .exited(0))
    }
}

/// What systemd does, done by a few lines of Python: a socket that is open before the program is, and one
/// that hears what the program says.
private struct Manager {
    private static let script = """
        import os, socket, sys
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(sys.argv[1])
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(sys.argv[2])))
        listener.listen(64)
        child = os.fork()
        if child == 0:
            os.dup2(listener.fileno(), 3)
            os.set_inheritable(3, True)
            os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="https",
                NOTIFY_SOCKET=sys.argv[1], WATCHDOG_USEC="400000", WATCHDOG_PID=str(os.getpid()))
            os.execv(sys.argv[4], sys.argv[4:])
        with open(sys.argv[3], "a", buffering=1) as log:
            log.write("PID %d\\n" % child)
            notify.settimeout(0.1)
            while os.waitpid(child, os.WNOHANG)[0] == 0:
                try: log.write(notify.recv(4096).decode().replace("\\n", " ") + "\\n")
                except socket.timeout: pass
            notify.settimeout(0)
            try:
                while True: log.write(notify.recv(4096).decode().replace("\\n", " ") + "\\n")
            except BlockingIOError: pass
        """

    private let folder: TemporaryFolder
    let gateway: Gateway

    init(_ setup: Setup) throws {
        let folder = try TemporaryFolder()
        self.folder = folder
        let path = try folder.write("systemd.py", Self.script)
        let port = try Ports.free()
        gateway = try Gateway(
            setup.with {
                $0.workers = 2
                $0.launcher = ["python3", path, folder.path("notify"), "\(port)", folder.path("said")]
            }, https: port)
    }

    /// Everything so far, a line a message.
    func said() throws -> String { try folder.read("said") }

    func wait(for text: String) throws {
        try Deadline(seconds: 10).wait("\(text) in \(try said())") { try said().contains(text) }
    }

    func signal(_ number: Int32) throws {
        let first = try said().split(separator: "\n").first?.split(separator: " ").last ?? ""
        guard let process = Int32(first) else { throw HarnessError("nobody said who the program is") }
        kill(process, number)
    }
}

extension Gateway {
    /// Has the program replaced by itself, and waits until only the new process is left.
    func upgrade() throws {
        let before = try processes()
        guard let process = before.first else { throw HarnessError("the gateway has ended") }
        kill(process, SIGUSR2)
        try Deadline(seconds: 30).wait("the upgrade. The gateway said: \(log)") {
            let present = try processes()
            return present.count == 1 && present != before
        }
    }

    /// The processes that run this gateway's configuration.
    func processes() throws -> [Int32] {
        try FileManager.default.contentsOfDirectory(atPath: "/proc").compactMap { Int32($0) }.filter {
            number in
            guard let line = FileManager.default.contents(atPath: "/proc/\(number)/cmdline") else {
                return false
            }
            let words = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
            return words.contains(configurationPath) && words.first?.hasSuffix("gateway") == true
        }
    }
}
