import Redis

/// The way to Redis for management: connects when it is needed, and anew after a failure. For one thread.
final class StoreSession {
    private let options: StoreOptions
    private let timeoutMilliseconds: Int
    private var client: RedisClient?

    /// - Parameter timeoutMilliseconds: for every exchange.
    init(_ options: StoreOptions, timeoutMilliseconds: Int) {
        self.options = options
        self.timeoutMilliseconds = timeoutMilliseconds
    }

    /// Connects now, so that a store that is away is known before anything is asked.
    func connect() throws(KeyStoreProblem) {
        do {
            _ = try connected()
        } catch {
            throw .unavailable(error.text)
        }
    }

    private func connected() throws(RedisError) -> RedisClient {
        if let client { return client }
        let fresh = try RedisClient(options, timeoutMilliseconds: timeoutMilliseconds)
        client = fresh
        return fresh
    }

    /// One command and its reply.
    ///
    /// - Throws: `RedisError.server` for an error reply; after anything else the next call connects anew.
    func command(_ arguments: [String]) throws(RedisError) -> RedisValue {
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
        let client = try connected()
        do {
            return try client.pipeline(commands)
        } catch {
            forgetUnlessAnswered(error)
            throw error
        }
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
