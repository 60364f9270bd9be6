import Reactor
import TLS
import TestSupport
import Testing

@testable import Redis

@Suite("Clients that wait", .enabled(if: RedisServer.isAvailable))
struct RedisClientTests {
    static func options(
        _ port: Int, host: String = "127.0.0.1", user: String? = nil, password: String? = nil,
        database: Int = 0
    ) -> StoreOptions {
        StoreOptions(
            transport: .tcp(host: host, port: port, tls: false),
            credentials: StoreCredentials(user: user, password: password), database: database, caPath: nil)
    }

    static func options(_ server: RedisServer, _ route: Route, password: String? = nil) -> StoreOptions {
        let transport: StoreOptions.Transport
        switch route {
        case .tcp: transport = .tcp(host: "127.0.0.1", port: Int(server.port), tls: false)
        case .tls: transport = .tcp(host: "localhost", port: Int(server.tlsPort), tls: true)
        case .unixSocket: transport = .unixSocket(path: server.socketPath)
        }
        return StoreOptions(
            transport: transport, credentials: StoreCredentials(user: nil, password: password), database: 2,
            caPath: server.caPath)
    }

    @Test("every kind of answer is a value", arguments: Route.allCases)
    func kinds(_ route: Route) throws {
        let server = try RedisServer()
        let client = try RedisClient(Self.options(server, route), timeoutMilliseconds: 5_000)
        #expect(try client.command(["SET", "a", "1"]) == .status("OK"))
        #expect(try client.command(["INCR", "a"]).integer == 2)
        #expect(try client.command(["GET", "a"]).text == "2")
        #expect(try client.command(["GET", "b"]) == .null)
        #expect(try client.command(["HSET", "h", "x", "1", "y", ""]).integer == 2)
        let fields = try #require(try client.command(["HGETALL", "h"]).fields)
        #expect(fields.map(\.name).sorted() == ["x", "y"])
        let values = try client.pipeline([["GET", "a"], ["HGET", "a", "x"], ["PING"]])
        #expect(values.count == 3 && values[0].text == "2" && values[2] == .status("PONG"))
        guard case .error(let text) = values[1] else {
            Issue.record("\(values[1])")
            return
        }
        #expect(text.hasPrefix("WRONGTYPE"))
        #expect(throws: RedisError.server(text)) { try client.command(["HGET", "a", "x"]) }
        #expect(
            try client.command(["EVAL", "return string.rep('z', 200000)", "0"]).text?.utf8.count == 200_000)
    }

    @Test("bytes that are not text come through unchanged")
    func binary() throws {
        let server = try RedisServer()
        let client = try RedisClient(Self.options(server, .tcp), timeoutMilliseconds: 5_000)
        let value = try client.command(["EVAL", "return '\\255\\0\\254'", "0"])
        #expect(value == .string([255, 0, 254]))
    }

    @Test("the database is the one asked for")
    func database() throws {
        let server = try RedisServer()
        let second = try RedisClient(Self.options(server, .tcp), timeoutMilliseconds: 5_000)
        let first = try RedisClient(Self.options(Int(server.port)), timeoutMilliseconds: 5_000)
        _ = try second.command(["SET", "a", "1"])
        #expect(try first.command(["GET", "a"]) == .null)
        #expect(throws: RedisError.self) {
            try RedisClient(Self.options(Int(server.port), database: 99), timeoutMilliseconds: 5_000)
        }
    }

    @Test("a wrong password is refused with a reason that does not repeat it")
    func wrongPassword() throws {
        let server = try RedisServer(["--requirepass", "correct horse"])
        _ = try RedisClient(Self.options(server, .tcp, password: "correct horse"), timeoutMilliseconds: 5_000)
        do {
            _ = try RedisClient(Self.options(server, .tcp, password: "battery"), timeoutMilliseconds: 5_000)
            Issue.record("accepted")
        } catch RedisError.refused(let text) {
            #expect(text.contains("WRONGPASS") && !text.contains("battery"))
        }
        #expect(throws: RedisError.self) {
            try RedisClient(Self.options(server, .tcp), timeoutMilliseconds: 5_000)
        }
    }

    @Test("a server that repeats the password does not bring it into an error")
    func echoedPassword() throws {
        let server = try ScriptedServer { command in
            "-ERR unknown command '\(command[0])', with args beginning with: "
                + command.dropFirst().map { "'\($0)'" }.joined(separator: " ") + "\r\n"
        }
        defer { server.stop() }
        do {
            _ = try RedisClient(
                Self.options(Int(server.address.port), user: "u", password: "hunter2"),
                timeoutMilliseconds: 5_000)
            Issue.record("accepted")
        } catch {
            #expect(!error.text.contains("hunter2"), "\(error.text)")
        }
    }

    @Test("credentials are not shown")
    func hidden() {
        let options = Self.options(1, user: "u", password: "hunter2")
        var dumped = ""
        dump(options, to: &dumped)
        for text in ["\(options)", String(reflecting: options), dumped] {
            #expect(!text.contains("hunter2"), "\(text)")
        }
    }

    @Test("a Redis that is not there is unreachable, with a reason")
    func unreachable() throws {
        let port = Int(try Ports.free())
        let nowhere = StoreOptions(
            transport: .unixSocket(path: "/nonexistent/s"),
            credentials: StoreCredentials(user: nil, password: nil), database: 0, caPath: nil)
        for options in [Self.options(port), Self.options(port, host: "nowhere.invalid"), nowhere] {
            do {
                _ = try RedisClient(options, timeoutMilliseconds: 1_000)
                Issue.record("connected")
            } catch RedisError.unreachable(let text) {
                #expect(!text.isEmpty)
            }
        }
    }

    @Test("no call waits longer than its timeout", arguments: [nil, 20])
    func timeout(_ drip: Int?) throws {
        // The drip never stays silent for as long as the timeout, and never comes to an end.
        let server = try ScriptedServer(dripMilliseconds: drip) { _ in
            drip == nil ? nil : "$1000\r\n" + String(repeating: "x", count: 1_000) + "\r\n"
        }
        defer { server.stop() }
        let client = try RedisClient(Self.options(Int(server.address.port)), timeoutMilliseconds: 200)
        let start = MonotonicClock.nowMicroseconds()
        #expect(throws: RedisError.timeout) { try client.command(["PING"]) }
        let took = MonotonicClock.nowMicroseconds() - start
        #expect((150_000..<2_000_000).contains(took), "\(took)")
    }

    @Test("an answer that comes too late is not taken for the answer to the next question")
    func lateAnswer() throws {
        let server = try RedisServer()
        let client = try RedisClient(Self.options(server, .tcp), timeoutMilliseconds: 100)
        #expect(throws: RedisError.timeout) { try client.command(["DEBUG", "SLEEP", "0.3"]) }
        let end = MonotonicClock.nowMicroseconds() + 2_000_000
        var answer: RedisValue?
        while answer == nil, MonotonicClock.nowMicroseconds() < end {
            do {
                answer = try client.command(["ECHO", "second"])
            } catch RedisError.timeout {
                continue
            } catch {
                return
            }
        }
        #expect(answer?.text == "second")
    }

    @Test("a name whose first address does not answer leads to the second")
    func secondAddress() throws {
        let server = try RedisServer()
        let nobody = SocketAddress(ipv4: 0x7F00_0001, port: try Ports.free())
        let redis = SocketAddress(ipv4: 0x7F00_0001, port: server.port)
        _ = try NodeClient.connect(
            toOneOf: [nobody, redis], serverName: nil, caPath: nil, timeoutMilliseconds: 5_000)
        #expect(throws: ConnectionProblem.self) {
            try NodeClient.connect(
                toOneOf: [nobody, nobody], serverName: nil, caPath: nil, timeoutMilliseconds: 5_000)
        }
    }

    @Test("a server that is no Redis is refused")
    func noRedis() throws {
        let server = try ScriptedServer { _ in "HTTP/1.1 400 Bad Request\r\n" }
        defer { server.stop() }
        let client = try RedisClient(Self.options(Int(server.address.port)), timeoutMilliseconds: 5_000)
        #expect(throws: RedisError.self) { try client.command(["PING"]) }
    }

    @Test("messages of a subscription are waited for one by one")
    func messages() throws {
        let server = try RedisServer()
        let listener = try RedisClient(Self.options(server, .tcp), timeoutMilliseconds: 5_000)
        let other = try RedisClient(Self.options(server, .tcp), timeoutMilliseconds: 5_000)
        _ = try listener.command(["SUBSCRIBE", "news"])
        #expect(try listener.nextMessage(timeoutMilliseconds: 1) == nil)
        _ = try other.pipeline([["PUBLISH", "news", "a"], ["PUBLISH", "news", "b"]])
        let first = try listener.nextMessage(timeoutMilliseconds: 5_000)
        let second = try listener.nextMessage(timeoutMilliseconds: 5_000)
        #expect(first?.elements?.last?.text == "a" && second?.elements?.last?.text == "b")
    }

    /// In a process of its own, where nothing else allocates.
    @Test("attempts that fail cost no memory")
    func failedAttempts() async {
        await #expect(processExitsWith: .success) {
            let port = Int(try Ports.free())
            var grown: [Int] = []
            for _ in 0..<3 {
                let before = try MemoryCount.mappedBytes()
                for _ in 0..<2_000 {
                    _ = try? RedisClient(RedisClientTests.options(port), timeoutMilliseconds: 1_000)
                }
                grown.append(try MemoryCount.mappedBytes() - before)
            }
            // The first round warms up. 2,000 lost buffers of 32 KB would be 64 MB.
            #expect(grown[1] + grown[2] < 16 << 20, "\(grown) bytes more")
        }
    }
}

enum MemoryCount {
    /// What the process has mapped, touched or not: buffers that nobody has written to count as well.
    static func mappedBytes() throws -> Int {
        let text = try FileReader.read(path: "/proc/self/statm")
        let pages = String(decoding: text, as: UTF8.self).split(separator: " ").first.flatMap { Int($0) }
        return (pages ?? 0) * 4_096
    }
}
