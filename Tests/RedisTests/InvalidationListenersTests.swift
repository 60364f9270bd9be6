import Reactor
import TestSupport
import Testing

@testable import Redis

@Suite("Changes at many masters", .enabled(if: RedisServer.isAvailable))
struct InvalidationListenersTests {
    /// Listeners on a thread of their own, and what they have told.
    private final class Listening: Sendable {
        let news = Shared<[InvalidationNews]>([])
        let topology = Shared<StoreTopology?>(nil)
        private let stopping: Wakeup
        private let thread: Shared<ThreadHandle?>

        init() throws {
            let stopping = try Wakeup()
            self.stopping = stopping
            let options = StoreOptions(
                transport: .cluster([], tls: false), credentials: StoreCredentials(user: nil, password: nil),
                database: 0, caPath: nil)
            let (news, topology) = (news, topology)
            let listeners = InvalidationListeners(options, prefix: "k:") { item in
                news.update { $0.append(item) }
            }
            thread = Shared(
                try Thread.start(name: "listeners") { listeners.run(until: stopping) { topology.value } })
        }

        func follow(_ servers: RedisServer...) {
            let masters = servers.map { server in
                StoreTopology.Master(
                    node: StoreNode(host: "127.0.0.1", port: Int(server.port)),
                    address: SocketAddress(ipv4: 0x7F00_0001, port: server.port))
            }
            topology.update { $0 = StoreTopology(masters: masters, owners: []) }
        }

        func wait(_ what: String, until condition: ([InvalidationNews]) -> Bool) {
            let end = MonotonicClock.nowMicroseconds() + 10_000_000
            while !condition(news.value), MonotonicClock.nowMicroseconds() < end {
                Readiness.pause(milliseconds: 2)
            }
            #expect(condition(news.value), "waited in vain for \(what): \(news.value.suffix(5))")
        }

        func stop() {
            stopping.signal()
            thread.value?.join()
        }
    }

    private static func isProof(_ news: InvalidationNews) -> Bool {
        if case .verified = news { return true }
        return false
    }

    private static func isLoss(_ news: InvalidationNews) -> Bool {
        if case .lost = news { return true }
        return false
    }

    private func set(_ name: String, at server: RedisServer) throws {
        let client = try RedisClient(RedisClientTests.options(server, .tcp), timeoutMilliseconds: 5_000)
        _ = try client.command(["SET", name, "1"])
    }

    @Test("every master's changes are heard, and nothing is proved while one of them is not")
    func all() throws {
        let (first, second, third) = (try RedisServer(), try RedisServer(), try RedisServer())
        let listening = try Listening()
        defer { listening.stop() }
        listening.follow(first, second)
        listening.wait("all to be heard") { $0.contains(.established) }
        listening.wait("a proof") { $0.contains(where: Self.isProof) }
        try set("k:1", at: first)
        try set("k:2", at: second)
        listening.wait("the changes") {
            $0.contains(.changed(Array("k:1".utf8))) && $0.contains(.changed(Array("k:2".utf8)))
        }
        second.end()
        listening.wait("the loss") { $0.contains(where: Self.isLoss) }
        // What is told on one thread may still follow what another has told before.
        listening.wait("repeated attempts") { $0.count(where: Self.isLoss) > 3 }
        let heard = listening.news.value
        let lost = try #require(heard.firstIndex(where: Self.isLoss))
        #expect(heard[(lost + 1)...].count(where: Self.isProof) <= 1)
        listening.follow(first, third)
        let before = listening.news.value.count
        listening.wait("all to be heard again") { $0[before...].contains(.established) }
        listening.wait("a proof again") { $0[before...].contains(where: Self.isProof) }
        try set("k:3", at: third)
        listening.wait("the new master's change") { $0.contains(.changed(Array("k:3".utf8))) }
    }
}
