import Testing

/// A Redis that outgrew one machine.
@Suite("Cluster", .serialized)
struct ClusterTests {
    static func key(_ number: Int) -> TestKey {
        TestKey(secret: "sk_live_member_\(number)", id: "", account: "", tier: "")
    }

    static func start(_ cluster: RedisCluster, _ extra: String = "") throws -> Gateway {
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.keys = []
                $0.store = "url: \"\(cluster.url)\"\n\(extra)"
                $0.workers = 2
            })
        try Deadline(seconds: 5).wait("the store") { try gateway.metric("gateway_store_up") == 1 }
        return gateway
    }

    @Test(
        "keys and accounts of every master are found, limited exactly and revoked at once",
        arguments: RedisServer.speaksTLS ? [RedisServer.Transport.plain, .tls] : [.plain])
    func everyMaster(_ transport: RedisServer.Transport) throws {
        let cluster = try RedisCluster(transport, password: "sesame-4")
        let count = 12
        for number in 0..<count {
            try cluster.store(
                Self.key(number).secret,
                ["tier": "pro", "account": "member\(number)", "limits": "2/minute,9/hour"])
        }
        let authority = transport == .tls ? "ca: \"\(try Certificate.shared.get().chainPath)\"" : ""
        let gateway = try Self.start(cluster, authority)
        for number in 0..<count {
            let statuses = try (0..<4).map { _ in try gateway.call(key: Self.key(number)).status }
            #expect(statuses == [200, 200, 429, 429])
        }
        var places: Set<Int> = []
        for number in 0..<count {
            let name = "gateway:limit:{member\(number)}:3600s"
            let owner = try cluster.owner(of: name)
            places.insert(owner)
            #expect(try cluster.nodes[owner].command("LLEN", name) == "2")
        }
        #expect(places == [0, 1, 2])
        for node in cluster.nodes { try node.command("SCRIPT", "FLUSH") }
        for number in 0..<count {
            #expect(try gateway.call(key: Self.key(number)).status == 429)
            try cluster.command(
                "HSET", "gateway:key:\(sha256Hexadecimal(Self.key(number).secret))", "status", "revoked")
            try Deadline(seconds: 1).wait("the revocation") {
                try gateway.call(key: Self.key(number)).status == 401
            }
        }
        #expect(try gateway.metricSum("gateway_ratelimit_total", holding: "degraded") == 0)
    }

    @Test("slots move to and fro, and the promise holds without a decision made elsewhere")
    func migration() throws {
        let cluster = try RedisCluster()
        let moved = Self.key(0)
        try cluster.store(moved.secret, ["tier": "pro", "account": "mover", "limits": "40/second"])
        // Longer than a busy machine takes: what counts here is where decisions are made.
        let gateway = try Self.start(cluster, "timeout: 2s")
        let slots = [
            try ClusterSlots.slot(of: "{mover}", cluster.nodes[0]),
            try ClusterSlots.slot(of: "gateway:key:\(sha256Hexadecimal(moved.secret))", cluster.nodes[0]),
        ]
        let callers = Admissions(4, of: gateway, key: moved)
        var owners = slots.map { cluster.owner(of: $0) }
        for round in 0..<6 {
            for (index, slot) in slots.enumerated() {
                let target = (owners[index] + 1 + round % 2) % 3
                try cluster.move(slot: slot, from: owners[index], to: target) {
                    try callers.wait(for: 8)
                }
                owners[index] = target
            }
        }
        let calls = try callers.stop()
        #expect(Set(calls.map(\.status)) == [200, 429])
        #expect(try gateway.metricSum("gateway_ratelimit_total", holding: "degraded") == 0)
        #expect(calls.worst(in: 1_000_000) <= 40)
        #expect(calls.rate > 30, "\(calls.rate)")
        // What it is told of now is heard from the master that has the record now.
        try cluster.command("DEL", "gateway:key:\(sha256Hexadecimal(moved.secret))")
        try Deadline(seconds: 1).wait("the revocation") { try gateway.call(key: moved).status == 401 }
    }

    @Test("a master dies, its replica takes over, and only its own share notices")
    func failover() throws {
        let cluster = try RedisCluster(replicas: 3)
        let count = 12
        for number in 0..<count {
            try cluster.store(Self.key(number).secret, ["tier": "enterprise", "account": "member\(number)"])
        }
        let gateway = try Self.start(cluster)
        for number in 0..<count { #expect(try gateway.call(key: Self.key(number)).status == 200) }
        let callers = Callers(4, of: gateway, key: Self.key(0))
        try callers.wait(for: 100)
        cluster.nodes[0].kill()
        try Deadline(seconds: 5).wait("the outage") { try gateway.metric("gateway_store_up") == 0 }
        for number in 0..<count { #expect(try gateway.call(key: Self.key(number)).status == 200) }
        try Deadline(seconds: 20).wait("the replica") { try gateway.metric("gateway_store_up") == 1 }
        try callers.wait(for: 100)
        #expect(try callers.stop().allSatisfy { $0.status == 200 })
        #expect(gateway.log.contains("its latest writes may be lost"))
        // Whatever master a record has now, its change is heard.
        for number in 0..<count {
            try cluster.nodes[1].command([
                "-c", "HSET", "gateway:key:\(sha256Hexadecimal(Self.key(number).secret))",
                "status", "revoked",
            ])
            try Deadline(seconds: 1).wait("the revocation") {
                try gateway.call(key: Self.key(number)).status == 401
            }
        }
    }

    @Test("a master that is away keeps no key of another from being looked at again")
    func revisits() throws {
        let cluster = try RedisCluster()
        for node in cluster.nodes { try node.command("CONFIG", "SET", "cluster-require-full-coverage", "no") }
        let keys = (0..<40).map { Self.key($0) }
        func owner(_ key: TestKey) throws -> Int {
            try cluster.owner(of: "gateway:key:\(sha256Hexadecimal(key.secret))")
        }
        // Many of the master that goes away, so that one of them is always among the first.
        let gone = try keys.filter { try owner($0) == 0 }.prefix(8)
        let kept = try #require(try keys.first { try owner($0) == 1 })
        for key in gone + [kept] {
            try cluster.store(key.secret, ["tier": "enterprise", "account": "streaming"])
        }
        let gateway = try Gateway(
            Setup(try Upstream(RevocationTests.endless)).with {
                $0.keys = []
                $0.store = "url: \"\(cluster.url)\""
            })
        try Deadline(seconds: 5).wait("changes to be heard") {
            try gateway.metric("gateway_revocation_lag_seconds").map { $0 < 1 } ?? false
        }
        let clients = try (gone + [kept]).map { try RevocationTests.stream(gateway, $0) }
        cluster.nodes[0].kill()
        try Deadline(seconds: 5).wait("the outage") { try gateway.metric("gateway_store_up") == 0 }
        for client in clients { _ = try client.take(100) }
        let name = "gateway:key:\(sha256Hexadecimal(kept.secret))"
        try cluster.nodes[1].command("HSET", name, "status", "revoked")
        let start = ContinuousClock.now
        try Deadline(seconds: 5).wait("the end of the answer") { (try? clients[gone.count].take(5)) == nil }
        #expect(start.duration(to: .now) < .seconds(1))
        for client in clients.dropLast() { _ = try client.take(100) }
    }

    @Test("keys are created, listed and revoked across masters, and a check names what is missing")
    func management() throws {
        let cluster = try RedisCluster()
        let gateway = try Self.start(cluster)
        func run(_ arguments: String...) throws -> ChildProcess.Outcome {
            try ChildProcess.run(
                try Gateway.binary(), arguments + ["--config", gateway.configurationPath])
        }
        var ids: Set<String> = []
        for number in 0..<6 {
            let created = try run(
                "keys", "create", "--tier", "pro", "--account", "a\(number)", "--output", "json")
            #expect(created.status == 0, "\(created.error)")
            let text = created.output
            let secret = try #require(text.firstMatch(of: /"key" ?: ?"([^"]+)"/)?.1)
            let id = try #require(text.firstMatch(of: /"id" ?: ?"([^"]+)"/)?.1)
            ids.insert(String(id))
            let made = TestKey(secret: String(secret), id: "", account: "", tier: "")
            #expect(try gateway.call(key: made).status == 200)
            guard number % 2 == 0 else { continue }
            #expect(try run("keys", "revoke", String(id), "--reason", "test").status == 0)
            try Deadline(seconds: 1).wait("the revocation") { try gateway.call(key: made).status == 401 }
        }
        let list = try run("keys", "list", "--output", "json")
        #expect(ids.allSatisfy { list.output.contains($0) }, "\(list.output)\(list.error)")
        let check = try run("check", "--live")
        #expect(check.status == 0 && !check.error.contains("maxmemory"), "\(check.error)")
        try cluster.nodes[1].command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        let warned = try run("check", "--live")
        #expect(warned.status == 0 && warned.error.contains("maxmemory-policy is allkeys-lru"))
        for node in cluster.nodes { try node.command("CONFIG", "SET", "cluster-require-full-coverage", "no") }
        try cluster.nodes[0].command("CLUSTER", "DELSLOTS", "7")
        let missing = try run("check", "--live")
        #expect(missing.status == 78 && missing.error.contains("1 slots of the cluster have no master"))
    }
}
