import Redis

/// The way to Redis for management: connects when it is needed, and anew after a failure. For one thread.
final class StoreSession {
    /// What is asked instead of Redis, where there is none.
    let memory: MemoryKeys?
    private let options: StoreOptions?
    private let timeoutMilliseconds: Int
    private var client: RedisClient?

    /// - Parameter timeoutMilliseconds: for every exchange.
    init(_ options: StoreOptions, timeoutMilliseconds: Int) {
        self.options = options
        self.timeoutMilliseconds = timeoutMilliseconds
        memory = nil
    }

    init(_ memory: MemoryKeys) {
        self.memory = memory
        options = nil
        timeoutMilliseconds = 0
    }

    /// Connects now, so that a store that is away is known before anything is asked.
    func connect() throws(KeyStoreProblem) {
        guard memory == nil else { return }
        do {
            _ = try connected()
        } catch {
            throw .unavailable(error.text)
        }
    }

    private func connected() throws(RedisError) -> RedisClient {
        if let client { return client }
        guard let options else { throw .unreachable("there is no store") }
        let fresh = try RedisClient(options, timeoutMilliseconds: timeoutMilliseconds)
        client = fresh
        return fresh
    }

    /// One command and its reply.
    ///
    /// - Throws: `RedisError.server` for an error reply; after anything else the next call connects anew.
    func command(_ arguments: [String]) throws(RedisError) -> RedisValue {
        if let memory { return memory.reply(to: arguments) }
        let client = try connected()
        do {
            return try client.command(arguments)
        } catch {
            forgetUnlessAnswered(error)
            throw error
        }
    }

    /// One command of many arguments.
    func command(_ arguments: [[UInt8]]) throws(RedisError) -> RedisValue {
        if let memory { return memory.reply(to: arguments.map { String(decoding: $0, as: UTF8.self) }) }
        let client = try connected()
        do {
            return try client.command(arguments)
        } catch {
            forgetUnlessAnswered(error)
            throw error
        }
    }

    /// Several commands in one write; error replies are values.
    func pipeline(_ commands: [[String]]) throws(RedisError) -> [RedisValue] {
        guard !commands.isEmpty else { return [] }
        if let memory { return commands.map(memory.reply) }
        let client = try connected()
        do {
            return try client.pipeline(commands)
        } catch {
            forgetUnlessAnswered(error)
            throw error
        }
    }

    /// Looks at a few fields of many hashes: see `RedisClient.select`.
    func select(
        _ names: [[UInt8]], fields: [String], where isWanted: (Int, Reply) -> Bool
    ) throws(RedisError) -> [Int] {
        guard !names.isEmpty else { return [] }
        // To read them whole costs nothing more.
        if memory != nil { return Array(names.indices) }
        let client = try connected()
        do {
            return try client.select(names, fields: fields, where: isWanted)
        } catch {
            forgetUnlessAnswered(error)
            throw error
        }
    }

    /// Makes sure that what comes next is not sent into a connection that ended while nobody used it, nor to
    /// a master of yesterday.
    func renew() {
        guard let client, let options else { return }
        if options.isFollowing || (try? client.command(["PING"])) == nil { self.client = nil }
    }

    private func forgetUnlessAnswered(_ error: RedisError) {
        switch error {
        // A master that has become a replica is no way to the store any more.
        case .server(let text) where text.hasPrefix("READONLY"): client = nil
        case .server, .refused: break
        case .unreachable, .timeout, .protocolViolation: client = nil
        }
    }
}
