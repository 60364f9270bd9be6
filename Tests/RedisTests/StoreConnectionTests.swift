import Reactor
import Redis
import TLS
import TestSupport
import Testing

/// Where a test's Redis is reached.
enum Route: CaseIterable, Sendable { case tcp, tls, unixSocket }

/// A connection with a loop of its own, as a worker has it.
final class Loop {
    static let script = "return {1, 2}"
    /// What Redis calls that script.
    static let scriptName = "c13f2c1f40b6ed89f8d3ab3ef4ec8e02d0d2ba94"

    let poller: Poller
    let wire: TLSWire
    private(set) var connection: StoreConnection?
    private var events = EventList()
    private let address: SocketAddress
    private let unixPath: String?

    init(
        port: Int, serverName: String? = nil, caPath: String? = nil, unixPath: String? = nil,
        user: String? = nil, password: String? = nil, database: Int = 0
    ) throws {
        poller = try Poller()
        wire = try TLSWire()
        address = SocketAddress(ipv4: 0x7F00_0001, port: UInt16(clamping: port))
        self.unixPath = unixPath
        let context = serverName == nil ? nil : try TLSClientContext(caPath: caPath, wire: wire)
        connection = StoreConnection(
            credentials: StoreCredentials(user: user, password: password), database: database,
            script: Self.script, poller: poller, token: 7, wire: wire, context: context,
            serverName: serverName ?? "")
    }

    convenience init(_ server: RedisServer, _ route: Route, password: String? = nil) throws {
        switch route {
        case .tcp: try self.init(port: Int(server.port), password: password)
        case .tls:
            try self.init(
                port: Int(server.tlsPort), serverName: "localhost", caPath: server.caPath, password: password)
        case .unixSocket: try self.init(port: 0, unixPath: server.socketPath, password: password)
        }
    }

    deinit {
        connection = nil
        Socket.close(poller.descriptor)
    }

    /// Lets go of the connection, as a worker that ends.
    func drop() { connection = nil }

    func connect() throws {
        let connection = try #require(connection)
        if let unixPath { connection.connect(toUnixPath: unixPath) } else { connection.connect(to: address) }
    }

    /// One turn: events, then output.
    func turn(_ take: (Reply) -> Void = { _ in }) throws {
        let connection = try #require(connection)
        poller.wait(timeoutMilliseconds: 20, into: &events)
        for index in 0..<events.count {
            connection.handle(events[index])
            while let reply = connection.nextReply() { take(reply) }
        }
        connection.flush()
    }

    /// Turns until `isDone`, five seconds at most.
    func turn(_ take: (Reply) -> Void = { _ in }, until isDone: (StoreConnection) -> Bool) throws {
        let connection = try #require(connection)
        let end = MonotonicClock.nowMicroseconds() + 5_000_000
        while !isDone(connection), MonotonicClock.nowMicroseconds() < end { try turn(take) }
        #expect(isDone(connection), "in vain: \(connection.phase) \(connection.failureReason)")
    }

    func becomeReady() throws {
        try connect()
        try turn { $0.phase == .ready || $0.phase == .closed }
        let connection = try #require(connection)
        #expect(connection.isReady, "\(connection.failureReason)")
    }

    func ask(_ arguments: [String]) throws {
        let connection = try #require(connection)
        let bytes = CommandWriter.bytes(arguments)
        #expect(connection.output.append(bytes.span) == bytes.count)
    }
}

/// A cable to a server on which nothing moves by itself, so that a test can put bytes of its own on it.
private final class Cable {
    let port: UInt16
    private let listener: Descriptor
    private let serverPort: UInt16
    private var near = Descriptor.none
    private var far = Descriptor.none

    init(to serverPort: UInt16) throws {
        self.serverPort = serverPort
        listener = try Socket.listen(
            on: SocketAddress(ipv4: 0x7F00_0001, port: 0), reusePort: false, backlog: 1)
        port = try #require(Socket.localAddress(listener)).port
    }

    deinit { for end in [listener, near, far] where end.isOpen { Socket.close(end) } }

    /// Carries what has come, both ways.
    func move() throws {
        if !near.isOpen {
            guard case .accepted(let accepted, _) = Socket.accept(on: listener) else { return }
            near = accepted
            far = try Socket.connect(to: SocketAddress(ipv4: 0x7F00_0001, port: serverPort)).descriptor
            _ = Readiness.wait(far, forWriting: true, timeoutMilliseconds: 1_000)
        }
        carry(from: near, to: far)
        carry(from: far, to: near)
    }

    private func carry(from source: Descriptor, to target: Descriptor) {
        var block = Block.allocate(capacity: 65_536)
        defer { block.deallocate() }
        if case .bytes = Socket.receive(source, into: &block) { _ = Socket.send(target, block.readable) }
    }

    /// Has the near end read bytes that the server did not send.
    func inject(_ bytes: [UInt8]) { _ = Socket.send(near, bytes.span) }
}

@Suite("Connections of workers", .enabled(if: RedisServer.isAvailable))
struct StoreConnectionTests {
    @Test("a connection is ready with the script's name", arguments: Route.allCases)
    func ready(_ route: Route) throws {
        let server = try RedisServer()
        let loop = try Loop(server, route)
        #expect(loop.connection?.phase == .closed)
        #expect(loop.connection?.nextReply() == nil)
        try loop.becomeReady()
        let connection = try #require(loop.connection)
        #expect(connection.scriptName.count == 40)
        let name = (0..<40).map { connection.scriptName.readable[$0] }
        try loop.ask(["EVALSHA", String(decoding: name, as: UTF8.self), "0"])
        var answers: [Int64] = []
        try loop.turn { reply in
            answers = (0..<reply.count).map { reply.element($0).integer }
        } until: { _ in
            !answers.isEmpty
        }
        #expect(answers == [1, 2])
    }

    @Test("answers come in the order of the questions, also when the pipe is full", arguments: Route.allCases)
    func order(_ route: Route) throws {
        let server = try RedisServer()
        let loop = try Loop(server, route)
        try loop.becomeReady()
        // 700 KB of questions are more than a socket takes at once.
        let filler = String(repeating: "x", count: 700)
        for number in 0..<1_000 { try loop.ask(["ECHO", "\(number) \(filler)"]) }
        var answers: [String] = []
        try loop.turn {
            answers.append($0.text)
        } until: { _ in
            answers.count == 1_000
        }
        #expect(answers == (0..<1_000).map { "\($0) \(filler)" })
        #expect(loop.connection?.output.isEmpty == true)
    }

    @Test("a worker that asks in bursts gets every answer", arguments: Route.allCases)
    func bursts(_ route: Route) throws {
        let server = try RedisServer()
        let loop = try Loop(server, route)
        try loop.becomeReady()
        var asked = 0
        var answers: [String] = []
        for burst in 0..<40 {
            for _ in 0..<(burst * 7 % 50) {
                try loop.ask(["ECHO", "\(asked)"])
                asked += 1
            }
            try loop.turn { answers.append($0.text) }
        }
        try loop.turn {
            answers.append($0.text)
        } until: { _ in
            answers.count == asked
        }
        #expect(answers == (0..<asked).map(String.init))
    }

    @Test("a large answer comes whole", arguments: Route.allCases)
    func largeAnswer(_ route: Route) throws {
        let server = try RedisServer()
        let loop = try Loop(server, route)
        try loop.becomeReady()
        try loop.ask(["EVAL", "return string.rep('y', 3000000)", "0"])
        var size = 0
        try loop.turn {
            size = $0.bytes.count
        } until: { _ in
            size > 0
        }
        #expect(size == 3_000_000)
    }

    @Test("a password is asked for and given", arguments: Route.allCases)
    func password(_ route: Route) throws {
        let server = try RedisServer(["--requirepass", "correct horse"])
        try Loop(server, route, password: "correct horse").becomeReady()
    }

    @Test("a wrong password closes with a reason that does not repeat it", arguments: ["wrong", nil])
    func wrongPassword(_ password: String?) throws {
        let server = try RedisServer(["--requirepass", "correct horse"])
        let loop = try Loop(server, .tcp, password: password)
        try loop.connect()
        try loop.turn { $0.phase == .closed }
        let reason = try #require(loop.connection).failureReason
        #expect(reason.contains(password == nil ? "NOAUTH" : "WRONGPASS"), "\(reason)")
        #expect(!reason.contains("correct") && !reason.contains("wrong "), "\(reason)")
    }

    @Test("a server that repeats the password does not bring it into the log")
    func echoedPassword() throws {
        let server = try ScriptedServer { command in
            "-ERR unknown command '\(command[0])', with args beginning with: "
                + command.dropFirst().map { "'\($0)'" }.joined(separator: " ") + "\r\n"
        }
        defer { server.stop() }
        let loop = try Loop(port: Int(server.address.port), user: "gateway", password: "hunter2")
        try loop.connect()
        try loop.turn { $0.phase == .closed }
        let reason = try #require(loop.connection).failureReason
        #expect(reason.contains("AUTH") && !reason.contains("hunter2"), "\(reason)")
    }

    @Test("an answer to the preamble that comes byte by byte is understood")
    func slowPreamble() throws {
        let server = try ScriptedServer(dripMilliseconds: 1) { command in
            switch command[0] {
            case "SCRIPT": "$40\r\n\(Loop.scriptName)\r\n"
            case "CLIENT": "-ERR unknown subcommand\r\n"
            default: "+OK\r\n"
            }
        }
        defer { server.stop() }
        let loop = try Loop(port: Int(server.address.port), user: "u", password: "p", database: 3)
        try loop.becomeReady()
        #expect(
            server.commands.value.map { $0.prefix(2) } == [
                ["AUTH", "u"], ["SELECT", "3"], ["CLIENT", "SETNAME"], ["INFO", "server"],
                ["INFO", "replication"], ["SCRIPT", "LOAD"],
            ])
    }

    @Test(
        "a server that is said to be the master is asked whether it is",
        arguments: [
            ("*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n", true), ("*1\r\n$5\r\nslave\r\n", false),
            ("-NOPERM this user has no permissions\r\n", true), ("-LOADING\r\n", false), ("*0\r\n", false),
        ])
    func role(_ answer: String, _ isUsed: Bool) throws {
        let information = "role:master\r\nmaster_replid:ab\r\nmaster_replid2:0000"
        let server = try ScriptedServer { command in
            switch command[0] {
            case "SCRIPT": "$40\r\n\(Loop.scriptName)\r\n"
            case "ROLE": answer
            case "INFO": "$\(information.utf8.count)\r\n\(information)\r\n"
            default: "+OK\r\n"
            }
        }
        defer { server.stop() }
        let loop = try Loop(port: Int(server.address.port))
        loop.connection?.checksRole = true
        try loop.connect()
        try loop.turn { $0.phase == .closed || $0.phase == .ready }
        #expect(loop.connection?.phase == (isUsed ? .ready : .closed))
        if isUsed { #expect(loop.connection?.history.identifier == "ab") }
    }

    @Test("the identifier of a history that begins anew is another, and names the former")
    func history() throws {
        let server = try RedisServer(["--repl-diskless-sync-delay", "0"])
        let replica = try RedisServer(["--replicaof", "127.0.0.1 \(server.port)"])
        func history(of port: UInt16) throws -> StoreHistory {
            let loop = try Loop(port: Int(port))
            try loop.becomeReady()
            return try #require(loop.connection).history
        }
        let client = try RedisClient(RedisClientTests.options(replica, .tcp), timeoutMilliseconds: 5_000)
        let end = MonotonicClock.nowMicroseconds() + 20_000_000
        while MonotonicClock.nowMicroseconds() < end {
            let text = try client.command(["INFO", "replication"]).text ?? ""
            if text.contains("master_link_status:up") { break }
        }
        let first = try history(of: server.port)
        #expect(!first.identifier.isEmpty && first.former.isEmpty)
        let shared = try history(of: replica.port)
        #expect(shared.identifier == first.identifier && shared.process != first.process)
        _ = try client.command(["REPLICAOF", "NO", "ONE"])
        let second = try history(of: replica.port)
        #expect(second.identifier != first.identifier && second.former == first.identifier)
        #expect(second.process == shared.process)
    }

    @Test(
        "a server that is no Redis is not used",
        arguments: [
            "HTTP/1.1 400 Bad Request\r\n\r\n", "+OK\r\n:7\r\n", "+OK\r\n$3\r\nabc\r\n", "+OK\r\n+OK\r\n",
        ])
    func noRedis(_ answer: String) throws {
        let server = try ScriptedServer { command in command[0] == "SCRIPT" ? nil : answer }
        defer { server.stop() }
        let loop = try Loop(port: Int(server.address.port))
        try loop.connect()
        try loop.turn { $0.phase == .closed }
        #expect(loop.connection?.failureReason.isEmpty == false)
    }

    @Test("nobody listening is a reason, and a later attempt succeeds")
    func refusedThenThere() throws {
        let port = try Ports.free()
        let loop = try Loop(port: Int(port))
        try loop.connect()
        try loop.turn { $0.phase == .closed }
        #expect(loop.connection?.failureReason.contains("refused") == true)
        let nowhere = try Loop(port: 0, unixPath: "/nonexistent/socket")
        try nowhere.connect()
        #expect(nowhere.connection?.phase == .closed)
        #expect(nowhere.connection?.failureReason.isEmpty == false)
    }

    @Test("a Redis that dies closes the connection, and the next one works", arguments: Route.allCases)
    func reconnect(_ route: Route) throws {
        let server = try RedisServer()
        let loop = try Loop(server, route)
        try loop.becomeReady()
        // Half an answer, then the end: the new connection must not read the rest of the old one.
        try loop.ask(["CLIENT", "KILL", "SKIPME", "no"])
        try loop.turn { $0.phase == .closed }
        #expect(loop.connection?.failureReason.isEmpty == false)
        for _ in 0..<5 {
            try loop.becomeReady()
            try loop.ask(["ECHO", "again"])
            var answer = ""
            try loop.turn {
                answer = $0.text
            } until: { _ in
                !answer.isEmpty
            }
            #expect(answer == "again")
            loop.connection?.close("for a test")
            #expect(loop.connection?.nextReply() == nil)
            #expect(loop.connection?.output.isEmpty == true)
        }
    }

    @Test("a TLS session that breaks leaves nothing in the wire that it shares with others")
    func brokenSession() throws {
        let server = try RedisServer()
        let cable = try Cable(to: server.tlsPort)
        let loop = try Loop(port: Int(cable.port), serverName: "localhost", caPath: server.caPath)
        try loop.connect()
        try loop.turn { connection in
            try? cable.move()
            return connection.phase == .ready
        }
        // A record that no key fits: OpenSSL answers with an alert.
        cable.inject([0x17, 3, 3, 0, 32] + [UInt8](repeating: 0x5A, count: 32))
        try loop.turn { $0.phase == .closed }
        #expect(loop.connection?.failureReason == "the TLS session broke")
        #expect(!loop.wire.hasOutbound)
    }

    @Test("a certificate for another name is not accepted")
    func otherName() throws {
        let server = try RedisServer()
        let loop = try Loop(
            port: Int(server.tlsPort), serverName: "example.org", caPath: server.caPath, password: "secret")
        try loop.connect()
        try loop.turn { $0.phase == .closed }
        let reason = try #require(loop.connection).failureReason
        #expect(reason.contains("certificate"), "\(reason)")
    }

    @Test("a certificate of another authority is not accepted")
    func otherAuthority() throws {
        let server = try RedisServer()
        let other = try RedisServer()
        let loop = try Loop(
            port: Int(server.tlsPort), serverName: "localhost", caPath: other.caPath, password: "secret")
        try loop.connect()
        try loop.turn { $0.phase == .closed }
        let reason = try #require(loop.connection).failureReason
        #expect(reason.contains("certificate"), "\(reason)")
    }

    @Test("a connection that nobody holds any more is closed")
    func released() throws {
        let server = try ScriptedServer { command in
            command[0] == "SCRIPT" ? "$40\r\n\(Loop.scriptName)\r\n" : "+OK\r\n"
        }
        defer { server.stop() }
        let loop = try Loop(port: Int(server.address.port))
        try loop.becomeReady()
        loop.drop()
        let end = MonotonicClock.nowMicroseconds() + 2_000_000
        while server.closedConnections.value == 0, MonotonicClock.nowMicroseconds() < end {}
        #expect(server.closedConnections.value == 1)
    }
}

@Suite("Delays between attempts")
struct ReconnectDelayTests {
    @Test("the delay doubles to half a second, at least half of it is waited, and success starts it anew")
    func doubles() {
        var generator = Seeded(1)
        for _ in 0..<100 {
            var delay = ReconnectDelay()
            var whole: Int64 = 10_000
            for _ in 0..<12 {
                let taken = delay.take(random: generator.next())
                #expect((whole / 2...whole).contains(taken))
                whole = min(whole * 2, 500_000)
            }
            delay.reset()
            #expect((5_000...10_000).contains(delay.take(random: .max)))
        }
    }
}
