import Reactor
import TLS

/// A connection to one server that waits for its answers.
///
/// Every call ends within the timeout. After a call that did not get all its answers the connection is of no
/// more use, because the next answer to come would belong to an earlier question.
final class NodeClient {
    private let connection: BlockingConnection
    private let reader = ReplyReader()
    private let timeoutMilliseconds: Int
    private var received: Block
    /// Whether answers may still come to questions that nobody waits for any more.
    private var isOutOfStep = false

    /// Connects, authenticates and selects the database.
    init(_ options: StoreOptions, timeoutMilliseconds: Int) throws(RedisError) {
        self.timeoutMilliseconds = timeoutMilliseconds
        do throws(ConnectionProblem) {
            switch options.transport {
            case .unixSocket(let path):
                connection = try BlockingConnection(
                    toUnixPath: path, timeoutMilliseconds: timeoutMilliseconds)
            case .tcp(let host, let port, let tls):
                let addresses = NameResolver.resolve(host: host, port: UInt16(clamping: port))
                guard !addresses.isEmpty else {
                    throw ConnectionProblem("the name \(host) cannot be resolved")
                }
                connection = try Self.connect(
                    toOneOf: addresses, serverName: tls ? host : nil, caPath: options.caPath,
                    timeoutMilliseconds: timeoutMilliseconds)
            case .sentinel, .cluster:
                throw ConnectionProblem("it is not known which server is meant")
            }
        } catch {
            throw .unreachable(error.text)
        }
        // Only now: an initialiser that throws earlier runs no deinit, which is what frees the block.
        received = Block.allocate(capacity: 65_536)
        if let command = options.credentials.command {
            if case .error(let text) = try exchange([command.map { Array($0.utf8) }])[0] {
                throw .refused(options.credentials.shown(refusal: text))
            }
        }
        if options.database != 0 { _ = try command(["SELECT", "\(options.database)"]) }
    }

    deinit { received.deallocate() }

    /// The first address that answers: a name may have one of each family, with nobody listening on the
    /// first. The attempts share the timeout.
    static func connect(
        toOneOf addresses: [SocketAddress], serverName: String?, caPath: String?, timeoutMilliseconds: Int
    ) throws(ConnectionProblem) -> BlockingConnection {
        let deadline = MonotonicClock.nowMicroseconds() + Int64(timeoutMilliseconds) * 1_000
        var problem = ConnectionProblem("there is no address")
        for (index, address) in addresses.enumerated() {
            let left = Int((deadline - MonotonicClock.nowMicroseconds()) / 1_000)
            guard left > 0 else { break }
            do throws(ConnectionProblem) {
                return try BlockingConnection(
                    to: address, serverName: serverName, caPath: caPath,
                    timeoutMilliseconds: max(1, left / (addresses.count - index)))
            } catch {
                problem = error
            }
        }
        throw problem
    }

    /// One command and its reply.
    ///
    /// - Throws: `.server` for an error reply.
    func command(_ arguments: [String]) throws(RedisError) -> RedisValue {
        try command(arguments.map { Array($0.utf8) })
    }

    func command(_ arguments: [[UInt8]]) throws(RedisError) -> RedisValue {
        let value = try exchange([arguments])[0]
        if case .error(let text) = value { throw Self.problem(text) }
        return value
    }

    /// What an error reply means.
    static func problem(_ text: String) -> RedisError {
        let refusals = ["NOAUTH", "NOPERM", "WRONGPASS"]
        return refusals.contains { text.hasPrefix($0) } ? .refused(text) : .server(text)
    }

    /// Several commands in one write; error replies are values.
    func pipeline(_ commands: [[String]]) throws(RedisError) -> [RedisValue] {
        try exchange(commands.map { $0.map { Array($0.utf8) } })
    }

    /// Waits for one more message, for connections that are subscribed.
    ///
    /// - Returns: nil when none came in time.
    func nextMessage(timeoutMilliseconds: Int) throws(RedisError) -> RedisValue? {
        if let reply = try reader.next() { return RedisValue(reply) }
        do throws(RedisError) {
            try receive(timeoutMilliseconds: timeoutMilliseconds)
        } catch {
            if error == .timeout { return nil }
            throw error
        }
        return try reader.next().map(RedisValue.init)
    }

    /// Sends a command without waiting for its reply.
    func send(_ arguments: [String]) throws(RedisError) {
        try write(CommandWriter.bytes(arguments))
    }

    private func write(_ bytes: [UInt8]) throws(RedisError) {
        var block = Block.constant(bytes: bytes)
        defer { block.deallocate() }
        do {
            try connection.send(block, timeoutMilliseconds: timeoutMilliseconds)
        } catch {
            throw error.isTimeout ? .timeout : .unreachable(error.text)
        }
    }

    private func receive(timeoutMilliseconds: Int) throws(RedisError) {
        received.clear()
        do throws(ConnectionProblem) {
            guard try connection.receive(into: &received, timeoutMilliseconds: timeoutMilliseconds) else {
                throw ConnectionProblem("Redis has closed the connection")
            }
        } catch {
            throw error.isTimeout ? .timeout : .unreachable(error.text)
        }
        reader.feed(received.readable)
    }

    private func exchange(_ commands: [[[UInt8]]]) throws(RedisError) -> [RedisValue] {
        var values: [RedisValue] = []
        values.reserveCapacity(commands.count)
        try exchange(commands.flatMap(CommandWriter.bytes), answers: commands.count) { reply in
            values.append(RedisValue(reply))
        }
        return values
    }

    /// - Parameter take: called with each answer, in order.
    private func exchange(_ bytes: [UInt8], answers: Int, _ take: (Reply) -> Void) throws(RedisError) {
        guard !isOutOfStep else {
            throw .unreachable("the connection was given up after an answer that came late or from a replica")
        }
        isOutOfStep = true
        let deadline = MonotonicClock.nowMicroseconds() + Int64(timeoutMilliseconds) * 1_000
        try write(bytes)
        var taken = 0
        var isReplica = false
        while taken < answers {
            if let reply = try reader.next() {
                // A master that has become a replica is not to be asked again: the next call says so.
                if reply.kind == .error, reply.text.hasPrefix("READONLY") { isReplica = true }
                take(reply)
                taken += 1
                continue
            }
            let left = Int((deadline - MonotonicClock.nowMicroseconds()) / 1_000)
            guard left > 0 else { throw .timeout }
            try receive(timeoutMilliseconds: left)
        }
        isOutOfStep = isReplica
    }
}

extension NodeClient {
    /// See `RedisClient.select`.
    func select(
        _ names: [[UInt8]], fields: [String], where isWanted: (Int, Reply) -> Bool
    ) throws(RedisError) -> [Int] {
        guard let first = names.first else { return [] }
        let head = Array("*\(2 + fields.count)\r\n$5\r\nHMGET\r\n".utf8)
        let tail = Array(("\r\n" + fields.map { "$\($0.utf8.count)\r\n\($0)\r\n" }.joined()).utf8)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(names.count * (head.count + 8 + first.count + tail.count))
        var length: (count: Int, bytes: [UInt8]) = (-1, [])
        for name in names {
            if name.count != length.count { length = (name.count, Array("$\(name.count)\r\n".utf8)) }
            bytes += head
            bytes += length.bytes
            bytes += name
            bytes += tail
        }
        var wanted: [Int] = []
        var index = 0
        try exchange(bytes, answers: names.count) { reply in
            if Self.isWanted(index, reply, isWanted) { wanted.append(index) }
            index += 1
        }
        return wanted
    }

    private static func isWanted(_ index: Int, _ reply: Reply, _ isWanted: (Int, Reply) -> Bool) -> Bool {
        switch reply.kind {
        case .array: isWanted(index, reply)
        case .error: !reply.text.hasPrefix("WRONGTYPE")
        case .string, .status, .integer, .null: false
        }
    }
}
