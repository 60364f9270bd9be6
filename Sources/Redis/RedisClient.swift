import Reactor

/// A client that waits for its answers: for the command line and for background threads.
///
/// Every call ends within the timeout, or twice that when a cluster sends it elsewhere. After a call that
/// threw anything but `.server` the client is of no more use.
package final class RedisClient {
    private let connections: Connections

    private enum Connections {
        case single(NodeClient)
        case cluster(ClusterClient)
    }

    /// Connects, authenticates and selects the database. The master of a sentinel's or a cluster's store is
    /// asked for first.
    package init(_ options: StoreOptions, timeoutMilliseconds: Int) throws(RedisError) {
        switch options.transport {
        case .tcp, .unixSocket:
            connections = .single(try NodeClient(options, timeoutMilliseconds: timeoutMilliseconds))
        case .sentinel:
            let directory = StoreDirectory(options, timeoutMilliseconds: timeoutMilliseconds)
            guard let master = try directory.find().masters.first else {
                throw .unreachable("no sentinel names a master")
            }
            connections = .single(
                try NodeClient(
                    options.leading(to: master.node), timeoutMilliseconds: timeoutMilliseconds))
        case .cluster:
            connections = .cluster(try ClusterClient(options, timeoutMilliseconds: timeoutMilliseconds))
        }
    }

    /// One command and its reply.
    ///
    /// - Throws: `.server` for an error reply.
    package func command(_ arguments: [String]) throws(RedisError) -> RedisValue {
        switch connections {
        case .single(let node): return try node.command(arguments)
        case .cluster(let cluster):
            let value = try cluster.command(arguments)
            if case .error(let text) = value { throw NodeClient.problem(text) }
            return value
        }
    }

    /// One command of many arguments; in a cluster only for what has one place.
    package func command(_ arguments: [[UInt8]]) throws(RedisError) -> RedisValue {
        switch connections {
        case .single(let node): return try node.command(arguments)
        case .cluster: return try command(arguments.map { String(decoding: $0, as: UTF8.self) })
        }
    }

    /// Several commands in one write; error replies are values.
    ///
    /// In a cluster a transaction whose names have different slots is carried out one command after the
    /// other, and ends with the first that fails: the caller orders them so that no state between does harm.
    package func pipeline(_ commands: [[String]]) throws(RedisError) -> [RedisValue] {
        switch connections {
        case .single(let node): return try node.pipeline(commands)
        case .cluster(let cluster): return try cluster.pipeline(commands)
        }
    }

    /// Looks at the same few fields of many hashes, all asked for in one write: a search through a store is
    /// made of little else, and takes what it needs from the answers where they lie.
    ///
    /// - Parameter isWanted: told the place of a name and the values of its `fields`.
    /// - Returns: the places of the names that are wanted, in order. Among them are those whose answer is an
    ///   error, which whoever asks for them by themselves gets to see; a name that is no hash is not wanted.
    package func select(
        _ names: [[UInt8]], fields: [String], where isWanted: (Int, Reply) -> Bool
    ) throws(RedisError) -> [Int] {
        switch connections {
        case .single(let node): return try node.select(names, fields: fields, where: isWanted)
        case .cluster(let cluster): return try cluster.select(names, fields: fields, where: isWanted)
        }
    }

    /// One command to every master, in a fixed order; error replies are values.
    package func everywhere(_ arguments: [String]) throws(RedisError) -> [RedisValue] {
        switch connections {
        case .single(let node): return try node.pipeline([arguments])
        case .cluster(let cluster): return try cluster.everywhere(arguments)
        }
    }

    /// Waits for one more message, for connections that are subscribed.
    ///
    /// - Returns: nil when none came in time.
    package func nextMessage(timeoutMilliseconds: Int) throws(RedisError) -> RedisValue? {
        guard case .single(let node) = connections else {
            throw .protocolViolation("a cluster is subscribed to by its masters")
        }
        return try node.nextMessage(timeoutMilliseconds: timeoutMilliseconds)
    }

    /// Sends a command without waiting for its reply.
    package func send(_ arguments: [String]) throws(RedisError) {
        guard case .single(let node) = connections else {
            throw .protocolViolation("a cluster is subscribed to by its masters")
        }
        try node.send(arguments)
    }
}
