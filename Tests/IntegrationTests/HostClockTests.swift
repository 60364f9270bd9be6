import Foundation
import Testing

/// A gateway whose own machine's clocks go astray: what it then takes Redis's clock for must not last.
@Suite("Clocks of a gateway's machine")
struct HostClockTests {
    /// Two gateways on one Redis; the clocks of the first can be set.
    struct Pair {
        let redis: RedisServer
        let upstream: Upstream
        let astray: Gateway
        let other: Gateway

        init(_ clock: SettableClock) throws {
            let redis = try RedisServer()
            self.redis = redis
            upstream = try Upstream()
            try redis.store(
                Fleet.key.secret, ["tier": "enterprise", "account": "pair", "limits": "10/3s"])
            let setup = Setup(upstream).with {
                $0.keys = []
                $0.store = "url: \"\(redis.url)\"\non_outage: closed"
            }
            astray = try Gateway(setup.with { $0.launcher = clock.launcher })
            other = try Gateway(setup)
            for gateway in [astray, other] {
                try Deadline(seconds: 5).wait("the store") {
                    try gateway.metric("gateway_store_up") == 1
                }
            }
            // Until they have gone by one clock for long enough to be sure of it.
            poll(nil, 0, 4_200)
        }

        var written: String {
            get throws { try redis.command("GET", "gateway:clock") }
        }

        /// How long what one has let in keeps the other from letting in more, in seconds.
        func held(by first: Gateway, from second: Gateway) throws -> Double {
            try redis.command("DEL", "gateway:limit:{pair}:3s")
            let start = ContinuousClock.now
            for _ in 0..<10 { #expect(try first.call(key: Fleet.key).status == 200) }
            let spent = ContinuousClock.now
            #expect(spent - start < .seconds(1))
            try Deadline(seconds: 10).wait("a permit") { try second.call(key: Fleet.key).status == 200 }
            return (ContinuousClock.now - start) / .seconds(1)
        }
    }

    @Test("NTP makes up half a second on one machine, and no gateway takes it for Redis's clock")
    func slewed() throws {
        let clock = try SettableClock([1])
        let pair = try Pair(clock)
        for part in 1...25 {
            try clock.set(apart: Int64(part) * 20_000)
            _ = try pair.astray.call(key: Fleet.key)
            poll(nil, 0, 50)
        }
        poll(nil, 0, 1_200)
        #expect(try pair.written == "")
        #expect(!pair.astray.log.contains("clock"))
    }

    @Test("a machine that stood still counts permits as the others do again")
    func paused() throws {
        let clock = try SettableClock([1, 4, 7])
        let pair = try Pair(clock)
        pair.astray.child.signal(SIGSTOP)
        poll(nil, 0, 1_000)
        try clock.set(apart: -1_000_000)
        pair.astray.child.signal(SIGCONT)
        try Deadline(seconds: 5).wait("the others' word") {
            pair.astray.log.contains("this machine's stood still")
        }
        #expect(try pair.written == "0:0")
        // What one lets in counts for a whole window at the other.
        for (first, second) in [(pair.astray, pair.other), (pair.other, pair.astray)] {
            let held = try pair.held(by: first, from: second)
            #expect(held > 2.95 && held < 4, "\(held)")
        }
    }

    @Test("what is written of Redis's clock, and nobody sees, is put right")
    func overwritten() throws {
        let pair = try Pair(SettableClock())
        try pair.redis.command("SET", "gateway:clock", "-500000:-500000")
        try Deadline(seconds: 5).wait("the truth") { try pair.written == "0:0" }
    }
}
