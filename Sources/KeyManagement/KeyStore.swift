package import Configuration
package import Keys
import Limits
import Reactor
import Redis
import TLS

// Creating, finding, changing, replacing and revoking keys: one implementation for the command line, the
// admin interface and background work. Every change goes through a transaction that also writes the trail.

/// The keys of one configuration: those it declares itself, and those of its store. For one thread.
///
/// Every call ends within the timeout of its commands; after a failure the next call connects anew.
package final class KeyStore {
    /// Keys that one page holds at most.
    package static let pageMax = 1_000
    /// How often a change begins again because somebody else was faster.
    static let attemptsMax = 5

    let configuration: GatewayConfiguration
    let prefix: String
    /// Whether names live in different slots, so that no script may touch two of them.
    let spreads: Bool
    let scanner: KeyScanner
    let format: KeyFormat
    let session: StoreSession?
    /// When records of other programs were last looked for, on the monotonic clock.
    var adoptedMicroseconds: Int64?
    /// Keys by account, for who asks again and again.
    var knownMembers: [String: KnownMembers] = [:]

    /// Connects to the configured store.
    ///
    /// - Parameters:
    ///   - memory: what to use where no store is configured; nil keeps no keys there.
    ///   - timeoutMilliseconds: for every exchange.
    ///   - connects: whether a store that is away is a failure now, or only when it is first asked.
    ///   - spreads: whether names live in different slots; nil is as the configured store has it.
    package init(
        _ configuration: GatewayConfiguration, memory: MemoryKeys? = nil,
        timeoutMilliseconds: Int = 2_000, connects: Bool = true, spreads: Bool? = nil
    ) throws(KeyStoreProblem) {
        var isCluster = false
        if case .cluster = configuration.store.endpoint { isCluster = true }
        self.configuration = configuration
        self.spreads = spreads ?? isCluster
        prefix = configuration.store.prefix
        guard let format = KeyFormat(prefixes: configuration.keys.prefixes) else {
            throw .refused("the configured key prefixes cannot be used")
        }
        self.format = format
        scanner = KeyScanner(format)
        guard let options = StoreOptions(configuration.store) else {
            session = memory.map(StoreSession.init)
            return
        }
        let session = StoreSession(options, timeoutMilliseconds: timeoutMilliseconds)
        self.session = session
        if connects { try session.connect() }
    }

    /// To be called before each use of a store that is kept for a long time.
    package func renew() { session?.renew() }

    /// Whether keys live as long as the process.
    package var isPassing: Bool { session?.memory != nil }

    /// Whether keys live in the configuration only.
    package var isMemory: Bool { session == nil }

    /// The digest under which a key is stored.
    package static func digest(
        of key: Span<UInt8>, _ configuration: GatewayConfiguration
    ) throws(KeyStoreProblem) -> Digest256 {
        do {
            let digester = try Digester()
            if let pepper = configuration.keys.pepper {
                return Digest256(digester.hmacSHA256(key: Array(pepper.reveal().utf8), key))
            }
            return Digest256(digester.sha256(key))
        } catch {
            throw .unavailable(error.message)
        }
    }

    /// A new secret of the configured shape, from the system's random source.
    func makeSecret() -> KeySecret {
        format.generate { (span: inout MutableSpan<UInt8>) in
            let random = RandomSource.bytes(span.count)
            for index in 0..<span.count { span[index] = random[index] }
        }
    }

    /// A function of its own, so that the span is gone before the secret changes hands.
    func digest(of secret: borrowing KeySecret) throws(KeyStoreProblem) -> Digest256 {
        try Self.digest(of: secret.bytes, configuration)
    }

    // MARK: Finding

    /// A key by its id.
    ///
    /// - Throws: `.notFound`, or `.refused` when its record cannot be used.
    package func find(id: String) throws(KeyStoreProblem) -> StoredKey {
        guard !scanner.holdsKey(id) else {
            throw .invalid(field: "id", "this is a key and not an id; a key is given on standard input only")
        }
        guard KeyRecord.isIdentifier(id) else { throw .notFound("there is no such key") }
        if let record = configuration.keys.staticKeys.first(where: { $0.id == id }) {
            return StoredKey(declared: record)
        }
        guard session != nil else { throw .notFound("there is no key \(id)") }
        if let found = try lookUp(id) { return found }
        // Records that other programs write need not have an entry by id.
        try adopt()
        if let found = try lookUp(id) { return found }
        throw .notFound("there is no key \(id)")
    }

    private func lookUp(_ id: String) throws(KeyStoreProblem) -> StoredKey? {
        guard let hex = try run(["GET", idName(id)]).text, let digest = Digest256(hex: hex),
            let found = try find(digest: digest), found.record.id == id
        else { return nil }
        return found
    }

    /// A key by its digest, nil when there is none.
    package func find(digest: Digest256) throws(KeyStoreProblem) -> StoredKey? {
        if let record = configuration.keys.staticKeys.first(where: { $0.digest == digest }) {
            return StoredKey(declared: record)
        }
        guard let session else { return nil }
        let value: RedisValue
        do {
            value = try session.command(["HGETALL", recordName(digest)])
        } catch {
            guard case .server(let text) = error, text.hasPrefix("WRONGTYPE") else {
                throw .unavailable(error.text)
            }
            throw .refused("the record of \(KeyRecord.defaultID(of: digest)) cannot be used: it is no hash")
        }
        guard let fields = value.fields, !fields.isEmpty else { return nil }
        let record: KeyRecord
        do {
            record = try KeyRecord(digest: digest, fields: fields) { _ in true }
        } catch {
            throw .refused("the record of \(KeyRecord.defaultID(of: digest)) cannot be used: \(error.text)")
        }
        var key = StoredKey(record: record, lastSeenSeconds: nil, isStatic: false, stored: fields)
        key.addUse(
            seen: try run(["HGET", "\(prefix)seen", record.id]),
            calls: try run(["HGET", "\(prefix)calls", record.id]))
        return key
    }

    // MARK: Checking

    /// Makes a key and its record; nothing is written.
    package func prepare(_ request: KeyRequest) throws(KeyStoreProblem) -> PreparedKey {
        try check(tier: request.tier)
        try check(scopes: request.scopes)
        if let limits = request.limits { try check(limits: limits) }
        if let name = request.name { try check(text: name, field: "name") }
        if let expires = request.expiresAtSeconds { try check(expires: expires) }
        if let account = request.account {
            guard KeyRecord.isIdentifier(account) else {
                throw .invalid(field: "account", "an account is 1 to 128 printable characters without braces")
            }
            guard !scanner.holdsKey(account) else { throw Self.holdsKey("account") }
        }
        let secret = makeSecret()
        var record = KeyRecord(
            digest: try digest(of: secret), tier: request.tier)
        if let account = request.account { record.account = account }
        record.scopes = request.scopes
        record.name = request.name
        record.hint = secret.hint
        record.createdAtSeconds = WallClock.nowSeconds()
        record.expiresAtSeconds = request.expiresAtSeconds
        record.limits = request.limits
        return PreparedKey(record: record, secret: secret)
    }

    func check(tier: String) throws(KeyStoreProblem) {
        guard !configuration.tiers.contains(where: { $0.name == tier }) else { return }
        let names = configuration.tiers.map(\.name).joined(separator: ", ")
        // What is said back may have come from a wrong paste.
        let shown = scanner.holdsKey(tier) || tier.utf8.count > 64 ? "" : " \"\(tier)\""
        throw .invalid(field: "tier", "unknown tier\(shown); there are \(names)")
    }

    func check(scopes: ScopeSet) throws(KeyStoreProblem) {
        guard !scanner.holdsKey(scopes.text) else { throw Self.holdsKey("scopes") }
    }

    func check(limits: String) throws(KeyStoreProblem) {
        guard !scanner.holdsKey(limits) else { throw Self.holdsKey("limits") }
        do {
            _ = try LimitSpecification.parse(limits)
        } catch {
            throw .invalid(field: "limits", error.text)
        }
    }

    /// The latest time that a record can hold: twelve digits.
    static let secondsMax: Int64 = 999_999_999_999

    func check(expires seconds: Int64) throws(KeyStoreProblem) {
        guard seconds <= Self.secondsMax else {
            throw .invalid(field: "expires_at", "this is no time in Unix seconds")
        }
        guard seconds > WallClock.nowSeconds() else {
            throw .invalid(field: "expires_at", "this time is in the past")
        }
    }

    /// A text that people write: short, printable, and without a key in it.
    func check(text: String, field: String) throws(KeyStoreProblem) {
        guard (1...KeyRecord.textBytesMax).contains(text.utf8.count), KeyRecord.isPrintable(text) else {
            throw .invalid(
                field: field, "this is 1 to \(KeyRecord.textBytesMax) bytes without control characters")
        }
        guard !scanner.holdsKey(text) else { throw Self.holdsKey(field) }
    }

    static func holdsKey(_ field: String) -> KeyStoreProblem {
        .invalid(field: field, "there is a key in it; keys are never written down")
    }

    // MARK: Names and commands

    func recordName(_ digest: Digest256) -> String { "\(prefix)key:\(digest.hexadecimal)" }
    func idName(_ id: String) -> String { "\(prefix)id:\(id)" }
    var indexName: String { "\(prefix)keys" }
    var trailName: String { "\(prefix)audit" }
    /// A hash: account and name of every key that has one, to the second at which it got it and its id.
    var namesName: String { "\(prefix)names" }

    func run(_ command: [String]) throws(KeyStoreProblem) -> RedisValue {
        guard let session else { throw Self.memoryRefusal }
        do {
            return try session.command(command)
        } catch {
            throw .unavailable(error.text)
        }
    }

    func run(_ command: [[UInt8]]) throws(KeyStoreProblem) -> RedisValue {
        guard let session else { throw Self.memoryRefusal }
        do {
            return try session.command(command)
        } catch {
            throw .unavailable(error.text)
        }
    }

    /// Several commands; error replies are values.
    func runAll(_ commands: [[String]]) throws(KeyStoreProblem) -> [RedisValue] {
        guard let session else { throw Self.memoryRefusal }
        do {
            return try session.pipeline(commands)
        } catch {
            throw .unavailable(error.text)
        }
    }

    /// Of hashes of these names, the places of those that are wanted: see `RedisClient.select`.
    func select(
        _ names: [[UInt8]], fields: [String], where isWanted: (Int, Reply) -> Bool
    ) throws(KeyStoreProblem) -> [Int] {
        guard let session else { throw Self.memoryRefusal }
        do {
            return try session.select(names, fields: fields, where: isWanted)
        } catch {
            throw .unavailable(error.text)
        }
    }

    static let memoryRefusal = KeyStoreProblem.refused("the memory store keeps no keys; use keys.static")
}

extension StoredKey {
    /// What the tables of use say.
    mutating func addUse(seen: RedisValue, calls: RedisValue) {
        lastSeenSeconds = seen.text.flatMap { Int64($0) }
        if record.rotatedTo != nil { callsSinceRotation = calls.text.flatMap { Int64($0) } ?? 0 }
    }
}

extension StoreOptions {
    /// How to reach the configured store; nil for the memory store.
    package init?(_ store: StoreConfiguration) {
        let transport: Transport
        switch store.endpoint {
        case .memory: return nil
        case .sentinel(let hosts, let name, let tls):
            transport = .sentinel(hosts.compactMap { StoreNode($0) }, name: name, tls: tls)
        case .cluster(let hosts, let tls):
            transport = .cluster(hosts.compactMap { StoreNode($0) }, tls: tls)
        case .redis(let host, let port, let tls): transport = .tcp(host: host, port: port, tls: tls)
        case .unixSocket(let path): transport = .unixSocket(path: path)
        }
        self.init(
            transport: transport,
            credentials: StoreCredentials(user: store.user, password: store.password?.reveal()),
            database: store.database, caPath: store.caPath)
    }
}
