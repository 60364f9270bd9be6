import Reactor

// Who the masters are, asked of those who decide it. All sentinels are asked: of what those say that answer,
// the answer of the latest configuration counts, and a server that does not itself say that it is a master is
// not one. A cluster's nodes tell each other; of a few of them the view with the latest epoch counts.

/// Finds the masters of a store that has several servers. For one thread, which waits.
package final class StoreDirectory {
    /// Servers that are remembered as ones to ask.
    private static let nodesMax = 64
    /// Nodes of a cluster whose views are compared.
    private static let viewsMax = 3

    private let options: StoreOptions
    private let timeoutMilliseconds: Int
    private var clients: [StoreNode: NodeClient] = [:]
    /// Whom to ask, those first that answered last.
    private var nodes: [StoreNode]
    private let configured: [StoreNode]

    /// - Parameter timeoutMilliseconds: for every question.
    package init(_ options: StoreOptions, timeoutMilliseconds: Int) {
        self.options = options
        self.timeoutMilliseconds = timeoutMilliseconds
        switch options.transport {
        case .tcp, .unixSocket: configured = []
        case .sentinel(let nodes, _, _), .cluster(let nodes, _): configured = nodes
        }
        nodes = configured
    }

    /// The masters as they are now.
    package func find() throws(RedisError) -> StoreTopology {
        switch options.transport {
        case .tcp, .unixSocket: throw .unreachable("nobody has to be asked for this store's masters")
        case .sentinel(_, let name, _): return try findBySentinel(name)
        case .cluster: return try findByCluster()
        }
    }

    // MARK: Sentinel

    private func findBySentinel(_ name: String) throws(RedisError) -> StoreTopology {
        var best: SentinelAnswer?
        var problem = RedisError.unreachable("no sentinel answers")
        var answering: [StoreNode] = []
        var named: [StoreNode] = []
        for sentinel in nodes {
            do throws(RedisError) {
                let answer = try askSentinel(sentinel, name)
                if best.map({ $0.epoch < answer.epoch }) ?? true { best = answer }
                answering.append(sentinel)
                named += answer.others
            } catch {
                clients[sentinel] = nil
                problem = .unreachable("sentinel \(sentinel): \(error.text)")
            }
        }
        guard let best else { throw problem }
        // Those that did not answer come last, and are forgotten when nobody speaks of them any more: each
        // costs a timeout.
        let silent = nodes.filter { !answering.contains($0) }
        nodes = answering
        for node in named where !silent.contains(node) { remember(node) }
        for node in silent where configured.contains(node) || named.contains(node) { remember(node) }
        return StoreTopology(masters: [try checked(best.node)], owners: [])
    }

    /// Where a sentinel sees the master, of which configuration, and the other sentinels that it knows.
    private typealias SentinelAnswer = (node: StoreNode, epoch: Int64, others: [StoreNode])

    private func askSentinel(_ sentinel: StoreNode, _ name: String) throws(RedisError) -> SentinelAnswer {
        let client = try sentinelClient(sentinel)
        // While a failover is under way the first answer is ahead of the second, which has the epoch.
        let answers = try client.pipeline([
            ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name], ["SENTINEL", "MASTER", name],
            ["SENTINEL", "SENTINELS", name],
        ])
        if case .error(let text) = answers[0] { throw NodeClient.problem(text) }
        guard let place = answers[0].elements, place.count == 2, let host = place[0].text,
            let port = place[1].text.flatMap({ Int($0) }), (1...65_535).contains(port)
        else { throw .server("it knows no master named \(name)") }
        let others = (answers[2].elements ?? []).compactMap { Self.place($0.fields ?? []) }
        let epoch = answers[1].fields?.first { $0.name == "config-epoch" }.flatMap { Int64($0.value) }
        return (StoreNode(host: host, port: port), epoch ?? 0, others)
    }

    private static func place(_ fields: [(name: String, value: String)]) -> StoreNode? {
        guard let host = fields.first(where: { $0.name == "ip" })?.value,
            let port = fields.first(where: { $0.name == "port" }).flatMap({ Int($0.value) }),
            (1...65_535).contains(port)
        else { return nil }
        return StoreNode(host: host, port: port)
    }

    private func remember(_ node: StoreNode) {
        if !nodes.contains(node), nodes.count < Self.nodesMax { nodes.append(node) }
    }

    /// A sentinel has its own users: only one that asks for a password gets the store's.
    private func sentinelClient(_ sentinel: StoreNode) throws(RedisError) -> NodeClient {
        if let client = clients[sentinel] { return client }
        var anonymous = options.leading(to: sentinel)
        anonymous.database = 0
        let withPassword = anonymous.credentials
        anonymous.credentials = StoreCredentials(user: nil, password: nil)
        var client = try NodeClient(anonymous, timeoutMilliseconds: timeoutMilliseconds)
        if case .error(let text) = try client.pipeline([["PING"]])[0], text.hasPrefix("NOAUTH") {
            anonymous.credentials = withPassword
            client = try NodeClient(anonymous, timeoutMilliseconds: timeoutMilliseconds)
        }
        clients[sentinel] = client
        return client
    }

    private func client(_ node: StoreNode) throws(RedisError) -> NodeClient {
        if let client = clients[node] { return client }
        let made = try NodeClient(options.leading(to: node), timeoutMilliseconds: timeoutMilliseconds)
        clients[node] = made
        return made
    }

    /// The server, when it says itself that it is a master.
    private func checked(_ node: StoreNode) throws(RedisError) -> StoreTopology.Master {
        clients = clients.filter { $0.key == node || nodes.contains($0.key) }
        do throws(RedisError) {
            let client = try client(node)
            let role = try client.pipeline([["ROLE"]])[0]
            // Who may not ask has to believe the sentinels.
            if case .error(let text) = role, !text.hasPrefix("NOPERM") { throw NodeClient.problem(text) }
            if let name = role.elements?.first?.text, name != "master" {
                throw .server("it is a replica")
            }
        } catch {
            clients[node] = nil
            throw .unreachable("the sentinels name \(node) as the master: \(error.text)")
        }
        return try located(node)
    }

    private func located(_ node: StoreNode) throws(RedisError) -> StoreTopology.Master {
        guard
            let address = NameResolver.resolve(host: node.host, port: UInt16(clamping: node.port)).first
        else { throw .unreachable("the name \(node.host) cannot be resolved") }
        return StoreTopology.Master(node: node, address: address)
    }

    // MARK: Cluster

    private func findByCluster() throws(RedisError) -> StoreTopology {
        var best: (view: ClusterView, epoch: Int64)?
        var problem = RedisError.unreachable("no node of the cluster answers")
        var asked = 0
        var silent: [StoreNode] = []
        for node in nodes where asked < Self.viewsMax {
            do throws(RedisError) {
                let answer = try askNode(node)
                asked += 1
                if best.map({ $0.epoch < answer.epoch }) ?? true { best = answer }
            } catch {
                clients[node] = nil
                silent.append(node)
                problem = .unreachable("node \(node): \(error.text)")
            }
        }
        guard let best else {
            nodes = configured + nodes.filter { !configured.contains($0) }
            throw problem
        }
        // Whoever answers is asked first from now on; nodes that have left the cluster are forgotten.
        let known = best.view.masters.map(\.node)
        let kept = nodes.filter { configured.contains($0) || known.contains($0) }
        nodes = kept.filter { !silent.contains($0) } + kept.filter { silent.contains($0) }
        for node in known { remember(node) }
        clients = clients.filter { nodes.contains($0.key) }
        var masters: [StoreTopology.Master] = []
        for master in best.view.masters { masters.append(try located(master.node)) }
        guard masters.count <= StoreTopology.mastersMax else {
            throw .protocolViolation("the cluster has over \(StoreTopology.mastersMax) masters")
        }
        return StoreTopology(masters: masters, owners: best.view.owners)
    }

    private func askNode(_ node: StoreNode) throws(RedisError) -> (view: ClusterView, epoch: Int64) {
        let client = try client(node)
        let answers = try client.pipeline([["CLUSTER", "NODES"], ["CLUSTER", "INFO"]])
        for case .error(let text) in answers { throw NodeClient.problem(text) }
        guard let text = answers[0].text, let view = ClusterView(text, askedAt: node.host) else {
            throw .protocolViolation("the answer to CLUSTER NODES cannot be read")
        }
        var epoch: Int64 = 0
        for line in (answers[1].text ?? "").split(whereSeparator: \.isNewline) {
            let mark = "cluster_current_epoch:"
            if line.hasPrefix(mark) { epoch = Int64(line.dropFirst(mark.count)) ?? 0 }
            // What a node without a majority says counts for less than anything else.
            if line == "cluster_state:fail" { return (view, -1) }
        }
        return (view, epoch)
    }
}

/// What one node says about its cluster: `CLUSTER NODES`, which every version and every provider has.
struct ClusterView: Equatable {
    struct Master: Equatable {
        var node: StoreNode
        var slots: [ClosedRange<Int>]
    }

    /// Those that live, and those that still have slots, by address.
    var masters: [Master] = []
    /// Index into `masters` for each slot.
    var owners: [UInt8] = []

    /// - Parameter askedAt: the host that a node means which does not know its own.
    init?(_ text: String, askedAt host: String) {
        for line in text.split(whereSeparator: \.isNewline) {
            let words = line.split(separator: " ")
            guard words.count >= 8 else { return nil }
            let flags = words[2].split(separator: ",")
            guard flags.contains("master"), !flags.contains("handshake"), !flags.contains("noaddr") else {
                continue
            }
            guard let node = Self.node(words[1], askedAt: host) else { return nil }
            var slots: [ClosedRange<Int>] = []
            for word in words[8...] where !word.hasPrefix("[") {
                let ends = word.split(separator: "-").map { Int($0) }
                guard let first = ends.first ?? nil, let last = ends.last ?? nil, first <= last,
                    first >= 0, last < ClusterSlot.count
                else { return nil }
                slots.append(first...last)
            }
            if slots.isEmpty, flags.contains("fail") { continue }
            masters.append(Master(node: node, slots: slots))
        }
        guard !masters.isEmpty, masters.count < Int(ClusterSlot.nobody) else { return nil }
        masters.sort { ($0.node.host, $0.node.port) < ($1.node.host, $1.node.port) }
        owners = Array(repeating: ClusterSlot.nobody, count: ClusterSlot.count)
        for (index, master) in masters.enumerated() {
            for slot in master.slots.joined() { owners[slot] = UInt8(index) }
        }
    }

    /// `ip:port@bus,hostname,…`: the name, when there is one, is what the node wants to be called by.
    private static func node(_ word: Substring, askedAt host: String) -> StoreNode? {
        let parts = word.split(separator: ",", omittingEmptySubsequences: false)
        guard var node = StoreNode(parts[0].prefix { $0 != "@" }) else { return nil }
        if parts.count > 1, !parts[1].isEmpty, !parts[1].contains("=") { node.host = String(parts[1]) }
        if node.host.isEmpty { node.host = host }
        return node
    }
}
