import Reactor
import Redis
import TestSupport
import Testing

/// A listener on a thread of its own, and what it has told.
final class Listening: Sendable {
    struct News: Sendable {
        let what: InvalidationNews
        let atMicroseconds: Int64
    }

    let news = Shared<[News]>([])
    private let stopping: Wakeup
    private let thread: ThreadHandle

    init(_ options: StoreOptions) throws {
        stopping = try Wakeup()
        thread = try Thread.start(name: "listening") { [news, stopping] in
            InvalidationListener(options, prefix: "gateway:key:").run(until: stopping) { what in
                news.update { $0.append(News(what: what, atMicroseconds: MonotonicClock.nowMicroseconds())) }
            }
        }
    }

    /// - Returns: microseconds that it took.
    @discardableResult
    func stop() -> Int64 {
        let start = MonotonicClock.nowMicroseconds()
        stopping.signal()
        thread.join()
        return MonotonicClock.nowMicroseconds() - start
    }

    func all(from start: Int = 0) -> [InvalidationNews] { news.value.dropFirst(start).map(\.what) }

    /// Names that have changed.
    var changed: [String] {
        all().compactMap {
            if case .changed(let name) = $0 { String(decoding: name, as: UTF8.self) } else { nil }
        }
    }

    /// Waits five seconds at most.
    func wait(
        from start: Int = 0, until isThere: (InvalidationNews) -> Bool,
        _ location: SourceLocation = #_sourceLocation
    ) throws {
        let end = MonotonicClock.nowMicroseconds() + 5_000_000
        let pause = try Wakeup()
        while !all(from: start).contains(where: isThere), MonotonicClock.nowMicroseconds() < end {
            _ = Readiness.pause(milliseconds: 2, unless: pause)
        }
        let hasCome = all(from: start).contains(where: isThere)
        #expect(hasCome, "in vain: \(all(from: start).suffix(5))", sourceLocation: location)
    }
}

extension InvalidationNews {
    var isLost: Bool { if case .lost = self { true } else { false } }
    var verified: Int64? { if case .verified(let sent) = self { sent } else { nil } }
    static func name(_ text: String) -> InvalidationNews { .changed(Array(text.utf8)) }
}

@Suite("News of changed records", .enabled(if: RedisServer.isAvailable))
struct InvalidationListenerTests {
    @Test("every way in which a record changes is told, and nothing else", arguments: Route.allCases)
    func changes(_ route: Route) throws {
        let server = try RedisServer()
        let other = try RedisClient(
            RedisClientTests.options(server, .tcp), timeoutMilliseconds: 5_000)
        _ = try other.command(["SET", "gateway:key:expiring", "x"])
        let listening = try Listening(RedisClientTests.options(server, route))
        defer { listening.stop() }
        try listening.wait { $0 == .established }
        #expect(listening.all().first == .established)
        _ = try other.pipeline([
            ["HSET", "gateway:key:a", "status", "revoked"], ["SET", "gateway:id:a", "x"],
            ["RPUSH", "gateway:limit:{a}:1", "1"], ["DEL", "gateway:key:a"],
            ["MSET", "gateway:key:b", "1", "gateway:key:c", "2"], ["PEXPIRE", "gateway:key:expiring", "1"],
            ["EVAL", "redis.call('SET', 'gateway:key:\\255', 'x')", "0"],
        ])
        try listening.wait { $0 == .name("gateway:key:c") }
        try listening.wait { $0 == .changed(Array("gateway:key:".utf8) + [255]) }
        // One message is of PEXPIRE, one of the end itself.
        _ = try other.command(["FLUSHALL"])
        try listening.wait { $0 == .everything }
        let names = listening.changed
        #expect(Set(names).isSuperset(of: ["gateway:key:a", "gateway:key:b", "gateway:key:expiring"]))
        #expect(names.allSatisfy { $0.hasPrefix("gateway:key:") }, "\(names)")
    }

    @Test("what is verified was sent before, and grows")
    func verified() throws {
        let server = try RedisServer()
        let start = MonotonicClock.nowMicroseconds()
        let listening = try Listening(RedisClientTests.options(server, .tcp))
        defer { listening.stop() }
        try listening.wait { ($0.verified ?? 0) > start + 500_000 }
        let sent = listening.news.value.compactMap { news in
            news.what.verified.map { ($0, news.atMicroseconds) }
        }
        #expect(sent.allSatisfy { $0.0 >= start && $0.0 <= $0.1 })
        #expect(zip(sent, sent.dropFirst()).allSatisfy { $0.0 < $1.0 })
        #expect(sent.count >= 4)
    }

    @Test("a change is told before the instant after it is verified")
    func orderOfProof() throws {
        let server = try RedisServer()
        let other = try RedisClient(RedisClientTests.options(server, .tcp), timeoutMilliseconds: 5_000)
        let listening = try Listening(RedisClientTests.options(server, .tcp))
        defer { listening.stop() }
        try listening.wait { $0 == .established }
        for round in 0..<10 {
            _ = try other.command(["SET", "gateway:key:\(round)", "x"])
            let done = MonotonicClock.nowMicroseconds()
            try listening.wait { ($0.verified ?? 0) > done }
            let all = listening.all()
            let told = all.firstIndex(of: .name("gateway:key:\(round)"))
            let proved = all.firstIndex { ($0.verified ?? 0) > done }
            #expect(try #require(told) < (try #require(proved)))
        }
    }

    @Test("a connection that dies silently is given up within a second of the last proof")
    func silence() throws {
        let server = try RedisServer()
        let other = try RedisClient(RedisClientTests.options(server, .tcp), timeoutMilliseconds: 10_000)
        let listening = try Listening(RedisClientTests.options(server, .tcp))
        defer { listening.stop() }
        try listening.wait { $0.verified != nil }
        _ = try other.command(["DEBUG", "SLEEP", "2"])
        try listening.wait { $0.isLost }
        let news = listening.news.value
        let lost = try #require(news.firstIndex { $0.what.isLost })
        let proof = try #require(news[..<lost].compactMap(\.what.verified).last)
        let age = news[lost].atMicroseconds - proof
        #expect(age < 1_000_000, "\(age)")
        #expect(news[lost].what == .lost(.timeout))
        try listening.wait(from: lost) { $0 == .established }
    }

    @Test("a connection that is closed is told at once, and made anew")
    func closed() throws {
        let server = try RedisServer()
        let other = try RedisClient(RedisClientTests.options(server, .tcp), timeoutMilliseconds: 5_000)
        let listening = try Listening(RedisClientTests.options(server, .tcp))
        defer { listening.stop() }
        try listening.wait { $0 == .established }
        for _ in 0..<3 {
            let start = listening.news.value.count
            #expect(try other.command(["CLIENT", "KILL", "TYPE", "pubsub"]).integer == 1)
            try listening.wait(from: start) { $0.isLost }
            try listening.wait(from: start) { $0 == .established }
            _ = try other.command(["SET", "gateway:key:again", "x"])
            try listening.wait(from: start) { $0 == .name("gateway:key:again") }
        }
    }

    @Test(
        "a server that only seems to track changes is not believed",
        arguments: ["silent", "numberless", "untracked", "unsubscribed"])
    func impostor(_ kind: String) throws {
        let server = try ScriptedServer { command in
            switch (command[0], kind) {
            case ("CLIENT", _) where command[1] == "ID": return kind == "numberless" ? "+OK\r\n" : ":7\r\n"
            case ("CLIENT", "untracked"): return "-ERR unknown subcommand\r\n"
            case ("CLIENT", _): return "+OK\r\n"
            case ("SUBSCRIBE", "unsubscribed"): return "*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"
            case ("SUBSCRIBE", _):
                return "*3\r\n$9\r\nsubscribe\r\n$20\r\n__redis__:invalidate\r\n:1\r\n"
            // An answer, but to no PING that was sent.
            default: return "*2\r\n$4\r\npong\r\n$1\r\n0\r\n"
            }
        }
        defer { server.stop() }
        let listening = try Listening(RedisClientTests.options(Int(server.address.port)))
        defer { listening.stop() }
        try listening.wait { $0.isLost }
        let all = listening.all()
        #expect(!all.contains { $0.verified != nil })
        #expect(all.contains(.established) == (kind == "silent"))
    }

    @Test("whoever stops a listener does not wait", arguments: [true, false])
    func stops(_ isThere: Bool) throws {
        let server = isThere ? try RedisServer() : nil
        let port = try server.map { Int($0.port) } ?? Int(Ports.free())
        let listening = try Listening(RedisClientTests.options(port))
        try listening.wait { isThere ? $0 == .established : $0.isLost }
        #expect(listening.stop() < 700_000)
    }
}
