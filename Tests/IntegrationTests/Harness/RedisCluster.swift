import Foundation
import TestSupport

/// A Redis cluster of the test's own: masters with an equal share of the slots each, and their replicas.
final class RedisCluster: Sendable {
    let nodes: [RedisServer]
    let masters: Int

    var url: String {
        let hosts = nodes.prefix(masters).map { "127.0.0.1:\($0.port)" }.joined(separator: ",")
        return "\(transport == .tls ? "rediss" : "redis")+cluster://\(userInfo)\(hosts)"
    }
    private let transport: RedisServer.Transport
    private let userInfo: String

    /// Only with what Redis 6.2 knows too.
    init(
        _ transport: RedisServer.Transport = .plain, masters: Int = 3, replicas: Int = 0,
        password: String? = nil
    ) throws {
        self.transport = transport
        self.masters = masters
        userInfo = password.map { ":\($0)@" } ?? ""
        let encryption = transport == .tls ? ["--tls-cluster", "yes", "--tls-replication", "yes"] : []
        let more = encryption + (password.map { ["--masterauth", $0] } ?? [])
        nodes = try (0..<(masters + replicas)).map { _ in
            try RedisServer(
                transport, port: try Ports.free(), password: password,
                options: [
                    "--cluster-enabled", "yes", "--cluster-node-timeout", "800", "--cluster-config-file",
                    "nodes.conf", "--repl-diskless-sync-delay", "0",
                ] + more)
        }
        for (index, node) in nodes.enumerated() {
            try node.command("CLUSTER", "SET-CONFIG-EPOCH", "\(index + 1)")
            guard index < masters else { continue }
            let first = ClusterSlots.count * index / masters
            let last = ClusterSlots.count * (index + 1) / masters - 1
            try node.command(["CLUSTER", "ADDSLOTS"] + (first...last).map(String.init))
        }
        for node in nodes.dropFirst() {
            try nodes[0].command("CLUSTER", "MEET", "127.0.0.1", "\(node.port)")
        }
        try Deadline(seconds: 20).wait("the cluster") {
            try nodes.allSatisfy { node in
                let information = try node.command("CLUSTER", "INFO")
                return information.contains("cluster_state:ok")
                    && information.contains("cluster_known_nodes:\(nodes.count)")
            }
        }
        for index in 0..<replicas {
            let node = nodes[masters + index]
            try node.command("CLUSTER", "REPLICATE", try identifier(of: index % masters))
        }
        for node in nodes.suffix(replicas) {
            try Deadline(seconds: 20).wait("replication") {
                try node.command("INFO", "replication").contains("master_link_status:up")
            }
        }
    }

    func identifier(of index: Int) throws -> String { try nodes[index].command("CLUSTER", "MYID") }

    /// The master that has a name's slot to begin with.
    func owner(of name: String) throws -> Int {
        owner(of: try ClusterSlots.slot(of: name, nodes[0]))
    }

    func owner(of slot: Int) -> Int {
        (0..<masters).first { slot < ClusterSlots.count * ($0 + 1) / masters } ?? 0
    }

    /// Writes a key's record where it belongs, as another program would.
    func store(_ key: String, _ fields: [String: String]) throws {
        try nodes[try owner(of: "gateway:key:\(sha256Hexadecimal(key))")].store(key, fields)
    }

    /// One command where a name belongs, followed wherever it is sent.
    @discardableResult
    func command(_ arguments: String...) throws -> String { try nodes[0].command(["-c"] + arguments) }

    /// Moves a slot as `redis-cli --cluster reshard` does, with a pause in the middle.
    ///
    /// - Parameter during: called while the slot belongs to both.
    func move(slot: Int, from source: Int, to target: Int, during: () throws -> Void = {}) throws {
        let (from, to) = (nodes[source], nodes[target])
        let (sourceID, targetID) = (try identifier(of: source), try identifier(of: target))
        try to.command("-e", "CLUSTER", "SETSLOT", "\(slot)", "IMPORTING", sourceID)
        try from.command("-e", "CLUSTER", "SETSLOT", "\(slot)", "MIGRATING", targetID)
        try during()
        // What goes on is created at the target, so that the second look finds nothing.
        for attempt in 0... {
            guard attempt < 10 else { throw HarnessError("slot \(slot) does not become empty") }
            let names = try from.command("CLUSTER", "GETKEYSINSLOT", "\(slot)", "100")
                .split(separator: "\n").map(String.init)
            if names.isEmpty { break }
            try from.command(["-e", "MIGRATE", "127.0.0.1", "\(to.port)", "", "0", "5000", "KEYS"] + names)
        }
        try during()
        // The target first, which then outdoes all that others believe; nobody has to wait for the rumour.
        for node in [to, from] + nodes.prefix(masters) {
            try node.command("-e", "CLUSTER", "SETSLOT", "\(slot)", "NODE", targetID)
        }
    }
}

enum ClusterSlots {
    static let count = 16_384

    static func slot(of name: String, _ node: RedisServer) throws -> Int {
        guard let slot = Int(try node.command("CLUSTER", "KEYSLOT", name)) else {
            throw HarnessError("no slot of \(name)")
        }
        return slot
    }
}

/// A master, a replica, and three sentinels that watch them.
final class RedisSentinels: Sendable {
    let master: RedisServer
    let replica: RedisServer
    let ports: [UInt16]
    private let folder: TemporaryFolder
    private let children: [ChildProcess]
    private let userInfo: String

    var url: String {
        "redis+sentinel://\(userInfo)" + ports.map { "127.0.0.1:\($0)" }.joined(separator: ",") + "/mymaster"
    }

    init(password: String? = nil) throws {
        userInfo = password.map { ":\($0)@" } ?? ""
        let authentication = password.map { ["--masterauth", $0] } ?? []
        let options = authentication + ["--repl-diskless-sync-delay", "0"]
        master = try RedisServer(password: password, options: options)
        replica = try RedisServer(
            password: password, options: options + ["--replicaof", "127.0.0.1", "\(master.port)"])
        folder = try TemporaryFolder()
        var ports: [UInt16] = []
        var children: [ChildProcess] = []
        for number in 0..<3 {
            let port = try Ports.free()
            var lines = [
                "port \(port)", "bind 127.0.0.1", "dir \(folder.root)", "daemonize no",
                "sentinel monitor mymaster 127.0.0.1 \(master.port) 2",
                "sentinel down-after-milliseconds mymaster 500", "sentinel failover-timeout mymaster 3000",
            ]
            if let password { lines.append("sentinel auth-pass mymaster \(password)") }
            let path = try folder.write("sentinel-\(number).conf", lines.joined(separator: "\n") + "\n")
            children.append(
                try ChildProcess(
                    RedisServer.program, [path, "--sentinel"], output: .file(folder.path("log-\(number)")),
                    error: .file(folder.path("log-\(number)"))))
            ports.append(port)
        }
        self.ports = ports
        self.children = children
        for number in 0..<3 {
            try Deadline(seconds: 20).wait("the sentinels") {
                let text = (try? sentinel(number, "SENTINEL", "MASTER", "mymaster")) ?? ""
                let words = text.split(separator: "\n").map(String.init)
                func value(_ name: String) -> String? {
                    words.firstIndex(of: name).map { words[$0 + 1] }
                }
                return value("num-slaves") == "1" && value("num-other-sentinels") == "2"
            }
        }
        try Deadline(seconds: 20).wait("replication") {
            try replica.command("INFO", "replication").contains("master_link_status:up")
        }
    }

    /// One command to a sentinel.
    @discardableResult
    func sentinel(_ number: Int, _ arguments: String...) throws -> String {
        let outcome = try ChildProcess.run("redis-cli", ["-p", "\(ports[number])"] + arguments, within: 10)
        guard outcome.status == 0 else { throw HarnessError("redis-cli: \(outcome.error)\(outcome.output)") }
        return outcome.output.trimmingCharacters(in: .newlines)
    }

    /// Whether a sentinel says that this is the master.
    func names(_ server: RedisServer, by number: Int) throws -> Bool {
        try sentinel(number, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
            .hasSuffix("\n\(server.port)")
    }

    /// Whether this one can take the master's place.
    func knowsReplica(_ server: RedisServer) throws -> Bool {
        let state = try server.command("INFO", "replication")
        guard state.contains("master_link_status:up") else { return false }
        return try ports.indices.allSatisfy { number in
            let words = try sentinel(number, "SENTINEL", "REPLICAS", "mymaster").split(separator: "\n")
            guard let port = words.firstIndex(of: "\(server.port)") else { return false }
            let own = words[port...]
            func isNext(_ name: Substring, _ value: Substring) -> Bool {
                own.firstIndex(of: name).map { own[$0 + 1] == value } ?? false
            }
            return isNext("flags", "slave") && isNext("master-link-status", "ok")
        }
    }

    /// Stops a sentinel for good.
    func kill(_ number: Int) { children[number].end() }
}
