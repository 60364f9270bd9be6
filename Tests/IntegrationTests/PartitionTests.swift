import Testing

/// Gateways on hosts of their own, of which some cannot reach Redis for a while.
@Suite(
    "Partition", .serialized,
    .enabled(if: NetworkHost.arePermitted, "this machine does not let the tests make network namespaces"))
struct PartitionTests {
    @Test(
        "a gateway that is cut off keeps to its share, or lets nobody in, and comes back to the one window",
        arguments: ["local", "closed"])
    func cutOff(_ outage: String) throws {
        let redis = try RedisServer(options: ["--bind", "0.0.0.0", "--protected-mode", "no"])
        let hosts = try (1...3).map { try NetworkHost(number: $0) }
        let fleet = try Fleet(
            3, limits: "600/3s", redis: redis, workers: 1, store: "on_outage: \(outage)", hosts: hosts)
        // The share is known once all hearts have beaten twice.
        fleet.wait(milliseconds: 2_200)
        fleet.hammer(2)
        fleet.wait(milliseconds: 1_000)
        try hosts[0].pull()
        let pulled = fleet.now
        try Deadline(seconds: 5).wait("the outage") { try !fleet.isStoreUp(0) }
        fleet.wait(milliseconds: 4_000)
        for number in 1...2 { #expect(try fleet.isStoreUp(number)) }
        try hosts[0].plug()
        try Deadline(seconds: 5).wait("the return") { try fleet.isStoreUp(0) }
        let back = fleet.now
        fleet.wait(milliseconds: 6_500)
        let outcomes = try fleet.finish()
        // One of three is cut off: its share on top of what the others let in.
        let bound = outage == "local" ? 600 + 600 / 3 : 600
        #expect(Promise.worst(outcomes, 3_000_000) <= bound)
        // Once what it let in meanwhile has been told, and at the latest a window later, all is as before.
        let after = outcomes.filter { $0.sent > back + 3_000_000 }
        #expect(Promise.worst(after, 3_000_000) <= 600)
        #expect(after.contains { $0.gateway == 0 && $0.status == 200 })
        let meanwhile = outcomes.filter {
            $0.gateway == 0 && $0.sent > pulled + 1_000_000 && $0.received < back - 500_000
        }
        #expect(meanwhile.contains { $0.status == (outage == "local" ? 200 : 503) })
        #expect(meanwhile.contains { $0.status == 200 } == (outage == "local"))
        #expect(Promise.worst(meanwhile, 3_000_000) <= 200)
    }
}
