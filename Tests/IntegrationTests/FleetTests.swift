import Foundation
import Testing

/// One limit over several gateways, while everything that can break does.
@Suite("Fleet", .serialized)
struct FleetTests {
    @Test("three gateways under a storm let in what one window holds, and all of it")
    func storm() throws {
        let fleet = try Fleet(3, limits: "300/2s")
        fleet.hammer(3)
        fleet.wait(milliseconds: 7_000)
        let outcomes = try fleet.finish()
        #expect(Promise.worst(outcomes, 2_000_000) <= 300)
        let admitted = outcomes.count { $0.status == 200 }
        #expect(outcomes.allSatisfy { $0.status == 200 || $0.status == 429 })
        // Full windows at 0, 2, 4 and 6 s.
        #expect(admitted * 100 >= 4 * 300 * 99, "\(admitted) of 1200")
        // A lease is as long as 1/32 of the window, and what is out on lease counts.
        let retries = Promise.falseRetries(outcomes, limit: 300, window: 2_000_000, slack: 100_000)
        #expect(retries.early == 0 && retries.late == 0 && retries.checked > 300, "\(retries)")
        let last = try #require(outcomes.last { $0.status == 429 }?.retryAfter)
        fleet.wait(milliseconds: Int32(last) * 1_000)
        for gateway in fleet.gateways { #expect(try gateway.call(key: Fleet.key).status == 200) }
    }

    @Test("an account in steady demand costs Redis a fraction of a command a call")
    func leases() throws {
        let fleet = try Fleet(2, limits: "60000/minute", workers: 1)
        fleet.hammer(4)
        fleet.wait(milliseconds: 1_000)
        let before = try fleet.scriptCalls()
        let start = fleet.now
        fleet.wait(milliseconds: 4_000)
        let calls = try fleet.scriptCalls() - before
        let end = fleet.now
        let outcomes = try fleet.finish()
        #expect(outcomes.allSatisfy { $0.status == 200 })
        let requests = outcomes.count { $0.sent >= start && $0.received <= end }
        #expect(requests > 400)
        #expect(Double(calls) < 0.05 * Double(requests), "\(calls) calls for \(requests) requests")
        // What was not spent has gone back: the window holds what was let in, and no lease is left.
        try Deadline(seconds: 5).wait("the leases") {
            try fleet.redis.command("LINDEX", "gateway:limit:{fleet}:60s", "0") == "r:\(outcomes.count)"
        }
    }

    @Test(
        "gateways that die, stop and return, a Redis that forgets its script and its clients: never too many")
    func faults() throws {
        let redis = try RedisServer()
        let relay = try Relay(to: redis.port)
        let fleet = try Fleet(
            3, limits: "1000/2s", redis: redis, storePort: relay.port, store: "on_outage: closed")
        fleet.hammer(3, pauses: [0, 0, 0, 1, 5])
        for round in 0..<2 {
            fleet.wait(milliseconds: 500)
            try fleet.strand([fleet.gateways[round]], window: 2, milliseconds: 1_000)
            fleet.gateways[round].child.signal(SIGSTOP)
            fleet.wait(milliseconds: 400)
            try redis.command("SCRIPT", "FLUSH")
            fleet.wait(milliseconds: 400)
            fleet.gateways[round].child.signal(SIGCONT)
            fleet.wait(milliseconds: 300)
            try fleet.strand(fleet.gateways, window: 2)
            try redis.command("CLIENT", "KILL", "TYPE", "normal")
            fleet.wait(milliseconds: 300)
            try redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            try fleet.strand([fleet.gateways[2]], window: 2)
            fleet.gateways[2].child.end()
            try fleet.replace(2)
            fleet.wait(milliseconds: 400)
            try fleet.strand(fleet.gateways, window: 2)
            redis.freeze()
            fleet.wait(milliseconds: 350)
            redis.thaw()
            fleet.wait(milliseconds: 300)
            relay.cut()
            fleet.wait(milliseconds: 600)
        }
        let outcomes = try fleet.finish()
        #expect(Promise.worst(outcomes, 2_000_000) <= 1_000)
        // What a gateway holds on lease that cannot report counts until a window after its end; nothing else
        // is lost.
        let admitted = outcomes.count { $0.status == 200 }
        let ideal = Promise.ideal(outcomes, limit: 1_000, window: 2_000_000, without: fleet.stranded)
        #expect(admitted * 100 >= ideal * 99, "\(admitted) of \(ideal)")
        #expect(ideal > 2_000)
    }

    @Test("Redis's clock is set, and the windows do not notice", arguments: [3_600, -3_600])
    func clock(_ seconds: Int64) throws {
        let clock = try SettableClock()
        let redis = try RedisServer(clock: clock)
        // Nobody decides without Redis: every call that is let in stands in its window.
        let fleet = try Fleet(2, limits: "200/2s", redis: redis, store: "on_outage: closed")
        fleet.hammer(3)
        fleet.wait(milliseconds: 3_100)
        try clock.set(apart: seconds * 1_000_000)
        fleet.wait(milliseconds: 4_200)
        let outcomes = try fleet.finish()
        #expect(Promise.worst(outcomes, 2_000_000) <= 200)
        let admitted = outcomes.count { $0.status == 200 }
        #expect(admitted >= 4 * 200 * 97 / 100, "\(admitted)")
        #expect(fleet.gateways.contains { $0.log.contains("clock has been set") })
        let fresh = try Gateway(
            Setup(fleet.upstream).with {
                $0.keys = []
                $0.store = "url: \"\(redis.url)\""
            })
        try Deadline(seconds: 5).wait("the store") { try fresh.metric("gateway_store_up") == 1 }
        let answer = try fresh.call(key: Fleet.key)
        #expect(answer.status == 429 || answer.status == 200)
        if let seconds = answer["Retry-After"].flatMap({ Int($0) }) { #expect(seconds <= 2) }
    }

    @Test("a Redis that comes back without its data is told what was let in")
    func restored() throws {
        let redis = try RedisServer()
        let fleet = try Fleet(2, limits: "300/20s", redis: redis)
        fleet.wait(milliseconds: 2_200)
        for gateway in fleet.gateways {
            for _ in 0..<100 { #expect(try gateway.call(key: Fleet.key).status == 200) }
        }
        redis.kill()
        let next = try RedisServer(after: redis)
        try next.store(
            Fleet.key.secret, ["tier": "enterprise", "account": "fleet", "limits": "300/20s"])
        // By the gateways themselves: nobody calls.
        func permits() throws -> Int {
            let head = try next.command("LINDEX", "gateway:limit:{fleet}:20s", "0")
            return Int(head.dropFirst(2).prefix { $0.isNumber }) ?? 0
        }
        try Deadline(seconds: 5).wait("what was let in") { try permits() >= 200 }
        #expect(try permits() == 200)
        for gateway in fleet.gateways { #expect(gateway.log.contains("its latest writes may be lost")) }
        fleet.hammer(2)
        fleet.wait(milliseconds: 1_000)
        let outcomes = try fleet.finish()
        #expect(outcomes.count { $0.status == 200 } <= 100)
    }

    @Test(
        "a Redis that loses everything again and again under a storm: never more than is promised for that",
        arguments: ["closed", "local"])
    func lost(_ outage: String) throws {
        var redis = try RedisServer()
        let fleet = try Fleet(
            3, limits: "600/3s", redis: redis, workers: 1, store: "on_outage: \(outage)")
        fleet.wait(milliseconds: 2_200)
        fleet.hammer(2)
        for _ in 0..<3 {
            fleet.wait(milliseconds: 1_700)
            redis.kill()
            fleet.wait(milliseconds: 300)
            redis = try RedisServer(after: redis)
            try redis.store(
                Fleet.key.secret, ["tier": "enterprise", "account": "fleet", "limits": "600/3s"])
            for number in 0..<3 {
                try Deadline(seconds: 5).wait("the store") { try fleet.isStoreUp(number) }
            }
            // It has heard of nobody yet, and still all of them count.
            for gateway in fleet.gateways { #expect(try gateway.metric("gateway_store_nodes") == 3) }
        }
        let outcomes = try fleet.finish()
        #expect(Promise.worst(outcomes, 3_000_000) <= (outage == "closed" ? 600 : 600 + 600 * 2 / 3))
        #expect(outcomes.count { $0.status == 200 } > 600)
    }

    @Test(
        "masters that stop, are replaced and die under a storm: never more than is promised for a failover",
        arguments: ["closed", "local"])
    func failovers(_ outage: String) throws {
        let sentinels = try RedisSentinels()
        let fleet = try Fleet(
            3, limits: "300/2s", sentinels: sentinels, store: "on_outage: \(outage)")
        fleet.wait(milliseconds: 2_200)
        fleet.hammer(2)
        var servers = [sentinels.master, sentinels.replica]
        for way in ["stops", "is replaced", "dies"] {
            fleet.wait(milliseconds: 2_500)
            // The replica has not seen the last writes.
            try servers[0].command("CLIENT", "KILL", "TYPE", "replica")
            fleet.wait(milliseconds: 200)
            switch way {
            case "stops": servers[0].freeze()
            case "dies": servers[0].kill()
            default:
                try Deadline(seconds: 20).wait("the failover") {
                    (try? sentinels.sentinel(0, "SENTINEL", "FAILOVER", "mymaster")) == "OK"
                }
            }
            try Deadline(seconds: 20).wait("the next master") {
                try (0..<3).allSatisfy { try sentinels.names(servers[1], by: $0) }
            }
            for number in 0..<3 {
                try Deadline(seconds: 10).wait("the store") { try fleet.isStoreUp(number) }
            }
            servers.reverse()
            guard way != "dies" else { break }
            servers[1].thaw()
            fleet.wait(milliseconds: 2_000)
            try servers[1].command("REPLICAOF", "127.0.0.1", "\(servers[0].port)")
            try Deadline(seconds: 30).wait("a replica to follow") { try sentinels.knowsReplica(servers[1]) }
        }
        fleet.wait(milliseconds: 4_000)
        let outcomes = try fleet.finish()
        let failed = outcomes.filter { ![200, 429, 503].contains($0.status) }
        #expect(failed.isEmpty, "\(failed.prefix(3))")
        #expect(outage == "closed" || outcomes.allSatisfy { $0.status != 503 })
        #expect(Promise.worst(outcomes, 2_000_000) <= (outage == "closed" ? 300 : 300 + 300 * 2 / 3))
        // Once every gateway has told the new master what it let in, and a window later at the latest, all is
        // as before.
        let since = fleet.now - 2_000_000
        #expect(Promise.worst(outcomes.filter { $0.sent > since }, 2_000_000) <= 300)
        #expect(outcomes.count { $0.status == 200 } > 2_000)
        for gateway in fleet.gateways {
            #expect(try gateway.metric("gateway_store_generations_total") ?? 0 >= 3)
        }
    }

    @Test("permits on lease are shown by gateway, and add up with what is spent and what is left")
    func shown() throws {
        let fleet = try Fleet(3, limits: "60000/minute", workers: 1)
        fleet.hammer(2)
        func run(_ arguments: String...) throws -> String {
            let options = ["--config", fleet.gateways[0].configurationPath]
            return try ChildProcess.run(try Gateway.binary(), arguments + options).output
        }
        let processes = fleet.gateways.map { "\($0.child.processID)-" }
        var shown = ""
        try Deadline(seconds: 20).wait("leases at all gateways") {
            shown = try run("limits", "show", "fleet")
            return processes.allSatisfy { shown.contains($0) }
        }
        let lines = shown.split(separator: "\n").map { line in
            line.split(separator: "  ").map { $0.filter { $0 != " " } }
        }
        #expect(lines[0].dropFirst(2).prefix(4) == ["LIMIT", "SPENT", "ONLEASE", "REMAINING"])
        let numbers = lines[1].dropFirst(2).prefix(4).compactMap { Int($0) }
        try #require(numbers.count == 4)
        #expect(numbers[0] == 60_000 && numbers[1] + numbers[2] + numbers[3] == 60_000, "\(shown)")
        let leases = lines.filter { line in processes.contains { line[0].contains($0) } }
        #expect(leases.reduce(0) { $0 + (Int($1[3]) ?? 0) } == numbers[2], "\(shown)")
        let id = "key_\(sha256Hexadecimal(Fleet.key.secret).prefix(16))"
        try Deadline(seconds: 20).wait("the explanation") {
            let text = try run("explain", "--key-id", id, "GET", "/api/x")
            return text.contains("of 60000 in 60 s left") && text.contains("on lease to 3 gateways")
        }
    }

    @Test("what another program wrote in place of an account's window concerns that account alone")
    func foreign() throws {
        let fleet = try Fleet(1, limits: "5/minute")
        let other = TestKey(secret: "sk_live_other", id: "", account: "", tier: "")
        try fleet.redis.store(other.secret, ["tier": "pro", "account": "other", "limits": "100/minute"])
        try fleet.redis.command("SET", "gateway:limit:{fleet}:60s", "text")
        let gateway = fleet.gateways[0]
        for number in 0..<8 {
            #expect(try gateway.call(key: other).status == 200)
            #expect(try gateway.call(key: Fleet.key).status == (number < 5 ? 200 : 429))
        }
        #expect(gateway.log.contains("limit:{fleet} is not a window"))
        #expect(try gateway.metricSum("gateway_ratelimit_total", holding: "degraded") == 8)
        #expect(try gateway.metric("gateway_store_up") == 1)
    }

    @Test("without Redis each gateway keeps its share, and what it let in counts when Redis is back")
    func outage() throws {
        let redis = try RedisServer()
        let fleet = try Fleet(2, limits: "400/4s", redis: redis, workers: 1)
        // The share is known once both hearts have beaten twice.
        fleet.wait(milliseconds: 2_200)
        for gateway in fleet.gateways { #expect(try gateway.call(key: Fleet.key).status == 200) }
        redis.freeze()
        fleet.hammer(3)
        fleet.wait(milliseconds: 1_500)
        let away = fleet.now
        redis.thaw()
        try Deadline(seconds: 5).wait("the return") {
            try fleet.gateways.allSatisfy { try $0.metric("gateway_store_up") == 1 }
        }
        fleet.wait(milliseconds: 1_500)
        let outcomes = try fleet.finish()
        // Half of the limit at each, together the limit. A gateway that is back before the other has told
        // what it let in may let in as much again as that, and no more.
        let before = outcomes.filter { $0.status == 200 && $0.received <= away }
        for gateway in 0..<2 { #expect(before.count { $0.gateway == gateway } <= 200) }
        #expect(before.count >= 390)
        #expect(Promise.worst(outcomes, 4_000_000) <= 400 + 400 / 2)
    }
}
