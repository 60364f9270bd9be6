import Reactor
import TLS

/// Where Redis is and how to speak to it.
package struct StoreOptions: Sendable {
    /// What carries the bytes.
    package enum Transport: Sendable {
        case tcp(host: String, port: Int, tls: Bool)
        case unixSocket(path: String)
    }

    /// How it is reached.
    package var transport: Transport
    /// Who asks.
    package var credentials: StoreCredentials
    /// Number of the database, 0 or above.
    package var database: Int
    /// Trust for TLS instead of the system's.
    package var caPath: String?

    /// Options as the configuration resolved them.
    package init(transport: Transport, credentials: StoreCredentials, database: Int, caPath: String?) {
        self.transport = transport
        self.credentials = credentials
        self.database = database
        self.caPath = caPath
    }
}

/// A reply as a value of its own, for threads that take their time.
package indirect enum RedisValue: Sendable, Equatable {
    case string([UInt8])
    case status(String)
    case error(String)
    case integer(Int64)
    case null
    case array([RedisValue])

    init(_ reply: Reply) {
        switch reply.kind {
        case .string: self = .string(reply.byteArray)
        case .status: self = .status(reply.text)
        case .error: self = .error(reply.text)
        case .integer: self = .integer(reply.integer)
        case .null: self = .null
        case .array: self = .array((0..<reply.count).map { RedisValue(reply.element($0)) })
        }
    }

    /// The text of a string or a status.
    package var text: String? {
        switch self {
        case .string(let bytes): return String(decoding: bytes, as: UTF8.self)
        case .status(let text): return text
        default: return nil
        }
    }

    /// The number, nil for anything else.
    package var integer: Int64? {
        if case .integer(let value) = self { return value }
        return nil
    }

    /// The elements of an array, nil for anything else.
    package var elements: [RedisValue]? {
        if case .array(let values) = self { return values }
        return nil
    }

    /// The fields of a hash as `HGETALL` returns them.
    package var fields: [(name: String, value: String)]? {
        guard let elements, elements.count % 2 == 0 else { return nil }
        var fields: [(name: String, value: String)] = []
        for index in stride(from: 0, to: elements.count, by: 2) {
            guard let name = elements[index].text, let value = elements[index + 1].text else { return nil }
            fields.append((name, value))
        }
        return fields
    }
}

/// A client that waits for its answers: for the command line and for background threads.
///
/// Every call ends within the timeout. After a call that did not get all its answers the client is of no
/// more use, because the next answer to come would belong to an earlier question.
package final class RedisClient {
    private let connection: BlockingConnection
    private let reader = ReplyReader()
    private let timeoutMilliseconds: Int
    private var received: Block
    /// Whether answers may still come to questions that nobody waits for any more.
    private var isOutOfStep = false

    /// Connects, authenticates and selects the database.
    package init(_ options: StoreOptions, timeoutMilliseconds: Int) throws(RedisError) {
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
    package func command(_ arguments: [String]) throws(RedisError) -> RedisValue {
        let value = try exchange([arguments.map { Array($0.utf8) }])[0]
        if case .error(let text) = value {
            if text.hasPrefix("NOAUTH") || text.hasPrefix("NOPERM") || text.hasPrefix("WRONGPASS") {
                throw .refused(text)
            }
            throw .server(text)
        }
        return value
    }

    /// Several commands in one write; error replies are values.
    package func pipeline(_ commands: [[String]]) throws(RedisError) -> [RedisValue] {
        try exchange(commands.map { $0.map { Array($0.utf8) } })
    }

    /// Waits for one more message, for connections that are subscribed.
    ///
    /// - Returns: nil when none came in time.
    package func nextMessage(timeoutMilliseconds: Int) throws(RedisError) -> RedisValue? {
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
    package func send(_ arguments: [String]) throws(RedisError) {
        try write([arguments.map { Array($0.utf8) }])
    }

    private func write(_ commands: [[[UInt8]]]) throws(RedisError) {
        var block = Block.constant(bytes: commands.flatMap(CommandWriter.bytes))
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
        guard !isOutOfStep else {
            throw .unreachable("the connection was given up after an answer that did not come in time")
        }
        isOutOfStep = true
        let deadline = MonotonicClock.nowMicroseconds() + Int64(timeoutMilliseconds) * 1_000
        try write(commands)
        var values: [RedisValue] = []
        while values.count < commands.count {
            if let reply = try reader.next() {
                values.append(RedisValue(reply))
                continue
            }
            let left = Int((deadline - MonotonicClock.nowMicroseconds()) / 1_000)
            guard left > 0 else { throw .timeout }
            try receive(timeoutMilliseconds: left)
        }
        isOutOfStep = false
        return values
    }
}
