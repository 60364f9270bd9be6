import Reactor
import Testing

@testable import Redis

@Suite("Finding the masters")
struct StoreDirectoryTests {
    private static func bulk(_ texts: [String]) -> String {
        "*\(texts.count)\r\n" + texts.map { "$\($0.utf8.count)\r\n\($0)\r\n" }.joined()
    }

    /// A server that says of itself what `role` says.
    private func server(_ role: String) throws -> ScriptedServer {
        try ScriptedServer { command in
            command[0] == "ROLE" ? Self.bulk([role]) : "+OK\r\n"
        }
    }

    /// A sentinel that names a master.
    ///
    /// - Parameters:
    ///   - others: ports of sentinels that it knows.
    ///   - password: that it asks for.
    private func sentinel(
        naming port: UInt16, epoch: Int, others: [UInt16] = [], password: String? = nil
    ) throws -> ScriptedServer {
        let isLoggedIn = Shared(password == nil)
        return try ScriptedServer { command in
            if command.first == "AUTH" {
                isLoggedIn.update { $0 = command.last == password }
                return isLoggedIn.value ? "+OK\r\n" : "-WRONGPASS\r\n"
            }
            guard isLoggedIn.value else { return "-NOAUTH Authentication required.\r\n" }
            switch command.dropFirst().first {
            case "GET-MASTER-ADDR-BY-NAME":
                return command.last == "main" ? Self.bulk(["127.0.0.1", "\(port)"]) : "*-1\r\n"
            case "MASTER": return Self.bulk(["name", "main", "config-epoch", "\(epoch)"])
            case "SENTINELS":
                return "*\(others.count)\r\n"
                    + others.map { Self.bulk(["ip", "127.0.0.1", "port", "\($0)"]) }.joined()
            default: return "+PONG\r\n"
            }
        }
    }

    private func directory(
        _ sentinels: [UInt16], name: String = "main", password: String? = nil,
        timeoutMilliseconds: Int = 2_000
    ) -> StoreDirectory {
        let nodes = sentinels.map { StoreNode(host: "127.0.0.1", port: Int($0)) }
        return StoreDirectory(
            StoreOptions(
                transport: .sentinel(nodes, name: name, tls: false),
                credentials: StoreCredentials(user: nil, password: password), database: 0, caPath: nil),
            timeoutMilliseconds: timeoutMilliseconds)
    }

    @Test("of sentinels that disagree, the one with the latest configuration is believed")
    func latest() throws {
        let (old, new) = (try server("master"), try server("master"))
        let sentinels = [
            try sentinel(naming: old.address.port, epoch: 4),
            try sentinel(naming: new.address.port, epoch: 5),
            try sentinel(naming: old.address.port, epoch: 4),
        ]
        defer { for server in sentinels + [old, new] { server.stop() } }
        let found = try directory(sentinels.map(\.address.port)).find()
        #expect(found.masters.map(\.address) == [new.address] && found.owners.isEmpty)
    }

    @Test("a server that is named as the master and says that it is none is not used")
    func replica() throws {
        let replica = try server("slave")
        let sentinel = try sentinel(naming: replica.address.port, epoch: 1)
        defer { for server in [replica, sentinel] { server.stop() } }
        let directory = directory([sentinel.address.port])
        do {
            _ = try directory.find()
            Issue.record("used")
        } catch {
            #expect(error.text.contains("it is a replica"), "\(error.text)")
        }
    }

    @Test("sentinels that nobody has configured are asked too, once one has told of them")
    func learned() throws {
        let (old, new) = (try server("master"), try server("master"))
        let other = try sentinel(naming: new.address.port, epoch: 2)
        let first = try sentinel(naming: old.address.port, epoch: 1, others: [other.address.port])
        defer { for server in [old, new, other] { server.stop() } }
        let directory = directory([first.address.port])
        _ = try directory.find()
        #expect(try directory.find().masters.map(\.address) == [new.address])
        first.stop()
        #expect(try directory.find().masters.map(\.address) == [new.address])
    }

    @Test("a sentinel that is silent is asked last, and no longer at all when nobody speaks of it")
    func silent() throws {
        let master = try server("master")
        let asked = Shared<[String]>([])
        func silentSentinel(_ name: String) throws -> ScriptedServer {
            try ScriptedServer { _ in
                asked.update { $0.append(name) }
                return nil
            }
        }
        let (configured, named) = (try silentSentinel("configured"), try silentSentinel("named"))
        let others = Shared([named.address.port])
        let talking = try ScriptedServer { command in
            switch command.dropFirst().first {
            case "GET-MASTER-ADDR-BY-NAME":
                asked.update { $0.append("talking") }
                return Self.bulk(["127.0.0.1", "\(master.address.port)"])
            case "MASTER": return Self.bulk(["name", "main", "config-epoch", "1"])
            case "SENTINELS":
                let list = others.value.map { Self.bulk(["ip", "127.0.0.1", "port", "\($0)"]) }
                return "*\(list.count)\r\n" + list.joined()
            default: return "+PONG\r\n"
            }
        }
        defer { for server in [master, configured, named, talking] { server.stop() } }
        let directory = directory(
            [configured.address.port, talking.address.port], timeoutMilliseconds: 250)
        func round() throws -> [String] {
            asked.update { $0 = [] }
            _ = try directory.find()
            return asked.value
        }
        #expect(try round() == ["configured", "talking"])
        #expect(try round() == ["talking", "named", "configured"])
        others.update { $0 = [] }
        #expect(try round() == ["talking", "named", "configured"])
        #expect(try round() == ["talking", "configured"])
    }

    @Test("only a sentinel that asks for a password is told it", arguments: [true, false])
    func password(_ isAsked: Bool) throws {
        let master = try server("master")
        let sentinel = try sentinel(
            naming: master.address.port, epoch: 1, password: isAsked ? "sesame" : nil)
        defer { for server in [master, sentinel] { server.stop() } }
        let found = try directory([sentinel.address.port], password: "sesame").find()
        #expect(found.masters.map(\.address) == [master.address])
        let isTold = sentinel.commands.value.contains { $0.contains("sesame") }
        #expect(isTold == isAsked)
    }

    @Test("a name that no sentinel knows, and sentinels that are not there, are reasons")
    func nobody() throws {
        let sentinel = try sentinel(naming: 1, epoch: 1)
        let port = sentinel.address.port
        for name in ["other", "main"] {
            let directory = directory([port], name: name)
            do {
                _ = try directory.find()
                Issue.record("found")
            } catch {
                let reason = name == "other" ? "no master named other" : "refused"
                #expect(error.text.contains(reason), "\(error.text)")
            }
            if name == "main" { sentinel.stop() }
        }
        #expect(throws: RedisError.self) { try directory([port]).find() }
    }

    @Test("a node that has lost the majority is believed only when nobody else answers")
    func majority() throws {
        func node(_ state: String, _ epoch: Int, slotsAt port: Int) throws -> ScriptedServer {
            let view = "a0 127.0.0.1:\(port)@1 myself,master - 0 0 1 connected 0-16383\n"
            let information = "cluster_state:\(state)\r\ncluster_current_epoch:\(epoch)\r\n"
            return try ScriptedServer { command in
                let text = command.last == "NODES" ? view : information
                return "$\(text.utf8.count)\r\n\(text)\r\n"
            }
        }
        let alone = try node("fail", 9, slotsAt: 7_001)
        let stale = try node("ok", 3, slotsAt: 7_002)
        let latest = try node("ok", 4, slotsAt: 7_003)
        defer { for server in [alone, stale, latest] { server.stop() } }
        func find(_ servers: ScriptedServer...) throws -> Int? {
            let nodes = servers.map { StoreNode(host: "127.0.0.1", port: Int($0.address.port)) }
            let options = StoreOptions(
                transport: .cluster(nodes, tls: false),
                credentials: StoreCredentials(user: nil, password: nil), database: 0, caPath: nil)
            return try StoreDirectory(options, timeoutMilliseconds: 2_000).find().masters.first?.node.port
        }
        #expect(try find(alone, stale, latest) == 7_003)
        #expect(try find(alone) == 7_001)
    }
}
