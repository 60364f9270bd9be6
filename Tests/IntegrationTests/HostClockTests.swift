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
}
