import Testing

// What a fleet does with a cluster hangs on how much is asked of it, so it runs when nothing else does.

extension FleetTests {
    @Test(
        "an account in steady demand is leased to gateways, also while its slot moves, and is told by gateway"
    )
    func leasesInACluster() throws {
        let cluster = try RedisCluster()
        let busy = ClusterTests.key(1)
        try cluster.store(busy.secret, ["tier": "enterprise", "account": "busy", "limits": "18000/10s"])
        let gateways = try (0..<2).map { _ in try ClusterTests.start(cluster, "timeout: 2s") }
        // Enough demand for each of the four workers, and a quarter of the limit: close to it there is little
        // to lease, and calls are decided one by one.
        let callers = Admissions(12, of: gateways[0], gateways[1], key: busy, pause: 25)
        try callers.wait(for: 200)
        func scriptCalls() throws -> Int {
            try cluster.nodes.reduce(0) { try $0 + $1.calls(of: "evalsha") }
        }
        func show() throws -> String {
            try ChildProcess.run(
                try Gateway.binary(),
                ["limits", "show", "busy", "--output", "json", "--config", gateways[0].configurationPath]
            ).output
        }
        try Deadline(seconds: 30).wait("both gateways in the account's leases") {
            try show().matches(of: /"node":/).count >= 2
        }
        let (before, decided) = (try scriptCalls(), callers.count)
        try callers.wait(for: 1_000)
        let share = Double(try scriptCalls() - before) / Double(callers.count - decided)
        #expect(share < 0.1, "\(share) commands a call")
        let slot = try ClusterSlots.slot(of: "{busy}", cluster.nodes[0])
        var owner = cluster.owner(of: slot)
        for _ in 0..<3 {
            try cluster.move(slot: slot, from: owner, to: (owner + 1) % 3) { try callers.wait(for: 50) }
            owner = (owner + 1) % 3
        }
        let calls = try callers.stop()
        #expect(Set(calls.map(\.status)).isSubset(of: [200, 429]))
        for gateway in gateways {
            #expect(try gateway.metricSum("gateway_ratelimit_total", holding: "degraded") == 0)
        }
        #expect(calls.worst(in: 10_000_000) <= 18_000)
    }
}
