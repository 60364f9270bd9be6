import Reactor

/// Asks each master of a cluster for what is its own. For threads that may wait.
final class ClusterClient {
    /// A command that is sent from one master to the next this often goes nowhere.
    private static let redirectionsMax = 8
    private static let pauseMilliseconds = 10

    private let options: StoreOptions
    private let timeoutMilliseconds: Int
    private let directory: StoreDirectory
    private var topology: StoreTopology
    private var clients: [StoreNode: NodeClient] = [:]

    init(_ options: StoreOptions, timeoutMilliseconds: Int) throws(RedisError) {
        self.options = options
        self.timeoutMilliseconds = timeoutMilliseconds
        directory = StoreDirectory(options, timeoutMilliseconds: timeoutMilliseconds)
        topology = try directory.find()
    }

    func command(_ command: [String]) throws(RedisError) -> RedisValue {
        if command.first?.uppercased() == "SCAN", command.count > 1 { return try scan(command) }
        return try ask(command)
    }

    func everywhere(_ command: [String]) throws(RedisError) -> [RedisValue] {
        var values: [RedisValue] = []
        for master in topology.masters { values += try send([command], to: master.node) }
        return values
    }

    func pipeline(_ commands: [[String]]) throws(RedisError) -> [RedisValue] {
        if commands.first == ["MULTI"], commands.last == ["EXEC"] { return try transaction(commands) }
        // What belongs to one master goes there in one write; order holds for each of them.
        var places: [StoreNode: [Int]] = [:]
        for (index, command) in commands.enumerated() {
            places[try node(for: command), default: []].append(index)
        }
        var values = [RedisValue](repeating: .null, count: commands.count)
        for (node, indices) in places {
            let answers = try send(indices.map { commands[$0] }, to: node)
            for (index, answer) in zip(indices, answers) {
                values[index] = Self.isElsewhere(answer) ? try ask(commands[index]) : answer
            }
        }
        return values
    }

    /// See `RedisClient.select`.
    func select(
        _ names: [[UInt8]], fields: [String], where isWanted: (Int, Reply) -> Bool
    ) throws(RedisError) -> [Int] {
        var places: [StoreNode: [Int]] = [:]
        for (index, name) in names.enumerated() {
            places[try node(of: ClusterSlot.of(name: name)), default: []].append(index)
        }
        var wanted: [Int] = []
        for (node, indices) in places {
            do throws(RedisError) {
                let found = try client(node).select(indices.map { names[$0] }, fields: fields) {
                    place, reply in
                    isWanted(indices[place], reply)
                }
                wanted += found.map { indices[$0] }
            } catch {
                clients[node] = nil
                throw error
            }
        }
        return wanted.sorted()
    }

    /// A transaction is one where the cluster can make it one.
    private func transaction(_ commands: [[String]]) throws(RedisError) -> [RedisValue] {
        let inner = commands.dropFirst().dropLast()
        let slots = Set(inner.compactMap { Self.slot(of: $0) })
        if slots.count <= 1, let first = inner.first {
            let answers = try send(commands, to: try node(for: first))
            // A redirected command was not queued, and then nothing was carried out.
            guard answers.contains(where: Self.isElsewhere) else { return answers }
            topology = try directory.find()
            let again = try send(commands, to: try node(for: first))
            guard again.contains(where: Self.isElsewhere) else { return again }
        }
        var results: [RedisValue] = []
        for command in inner {
            let result = try ask(command)
            results.append(result)
            if case .error = result { break }
        }
        while results.count < inner.count {
            results.append(.error("EXECABORT not carried out, because an earlier command failed"))
        }
        return [.status("OK")] + inner.map { _ in .status("QUEUED") } + [.array(results)]
    }

    /// One command, followed wherever it is sent.
    private func ask(_ command: [String]) throws(RedisError) -> RedisValue {
        let deadline = MonotonicClock.nowMicroseconds() + Int64(timeoutMilliseconds) * 1_000
        var target = try node(for: command)
        var isAsking = false
        for _ in 0..<Self.redirectionsMax {
            let answers = try send(isAsking ? [["ASKING"], command] : [command], to: target)
            let answer = answers[answers.count - 1]
            guard case .error(let text) = answer else { return answer }
            isAsking = false
            switch StoreRefusal(text: text) {
            case .moved(_, let node):
                target = node.host.isEmpty ? StoreNode(host: target.host, port: node.port) : node
                topology = (try? directory.find()) ?? topology
            case .ask(let node):
                target = node.host.isEmpty ? StoreNode(host: target.host, port: node.port) : node
                isAsking = true
            case .tryAgain, .away:
                guard MonotonicClock.nowMicroseconds() < deadline else { return answer }
                Readiness.pause(milliseconds: Self.pauseMilliseconds)
                topology = (try? directory.find()) ?? topology
                target = try node(for: command)
            case .noScript, .readOnly, .other: return answer
            }
        }
        throw .unreachable("the cluster sends a command from one master to the next")
    }

    private func send(_ commands: [[String]], to node: StoreNode) throws(RedisError) -> [RedisValue] {
        do throws(RedisError) {
            let client = try client(node)
            return try client.pipeline(commands)
        } catch {
            clients[node] = nil
            throw error
        }
    }

    private func client(_ node: StoreNode) throws(RedisError) -> NodeClient {
        if let client = clients[node] { return client }
        let made = try NodeClient(options.leading(to: node), timeoutMilliseconds: timeoutMilliseconds)
        clients[node] = made
        return made
    }

    /// Every master's names, one master after the other: `2:17` goes on with cursor 17 of the third.
    private func scan(_ command: [String]) throws(RedisError) -> RedisValue {
        let parts = command[1].split(separator: ":")
        let index = parts.count == 2 ? Int(parts[0]) ?? 0 : 0
        guard index < topology.masters.count, let cursor = parts.last else {
            return .array([.string(Array("0".utf8)), .array([])])
        }
        var own = command
        own[1] = String(cursor)
        let value = try send([own], to: topology.masters[index].node)[0]
        guard let elements = value.elements, elements.count == 2, let next = elements[0].text else {
            return value
        }
        var place = "\(index):\(next)"
        if next == "0" { place = index + 1 < topology.masters.count ? "\(index + 1):0" : "0" }
        return .array([.string(Array(place.utf8)), elements[1]])
    }

    // MARK: Places

    private func node(for command: [String]) throws(RedisError) -> StoreNode {
        guard let slot = Self.slot(of: command) else { return topology.masters[0].node }
        return try node(of: slot)
    }

    private func node(of slot: UInt16) throws(RedisError) -> StoreNode {
        let owner = topology.owners[Int(slot)]
        guard owner != ClusterSlot.nobody else {
            throw .unreachable("no master of the cluster has slot \(slot)")
        }
        return topology.masters[Int(owner)].node
    }

    private static func isElsewhere(_ value: RedisValue) -> Bool {
        guard case .error(let text) = value else { return false }
        switch StoreRefusal(text: text) {
        case .moved, .ask, .tryAgain, .away: return true
        case .noScript, .readOnly, .other: return false
        }
    }

    /// Commands that any node carries out.
    private static let keyless: Set<String> = [
        "PING", "ECHO", "TIME", "INFO", "CONFIG", "CLIENT", "CLUSTER", "COMMAND", "SCRIPT", "PUBLISH", "ROLE",
        "ACL", "DBSIZE", "MULTI", "EXEC", "DISCARD", "WAIT", "ASKING",
    ]

    /// The slot of a command's first name; nil when it has none.
    static func slot(of command: [String]) -> UInt16? {
        guard let name = command.first?.uppercased(), !keyless.contains(name) else { return nil }
        var position = 1
        switch name {
        case "EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO":
            guard command.count > 2, let keys = Int(command[2]), keys > 0 else { return nil }
            position = 3
        case "XREAD", "XREADGROUP":
            let streams = command.firstIndex { $0.uppercased() == "STREAMS" }
            guard let streams else { return nil }
            position = streams + 1
        case "OBJECT", "MEMORY", "XINFO", "XGROUP": position = 2
        default: break
        }
        return position < command.count ? ClusterSlot.of(name: Array(command[position].utf8)) : nil
    }
}
