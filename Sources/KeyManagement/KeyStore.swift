package import Configuration
package import Keys
import Limits
import Reactor
import Redis
import TLS

// Creating, finding and revoking keys: the same code for the command line and for background work. Every
// change is one MULTI, so that no reader sees a record without its id or an audit line without its change.

/// Why a key operation was not done.
package enum KeyStoreProblem: Error, Sendable {
    /// Redis is not there, or answers nonsense.
    case unavailable(String)
    /// What was asked for cannot be done; one sentence.
    case refused(String)

    /// One sentence, without secrets.
    package var text: String {
        switch self {
        case .unavailable(let text), .refused(let text): return text
        }
    }
}

/// What a new key is to be.
package struct KeyRequest: Sendable {
    /// Whom its calls are charged to; nil is the key itself.
    package var account: String?
    /// Name of a configured tier.
    package var tier: String
    /// What it may do.
    package var scopes: ScopeSet
    /// What its owner calls it, at most 256 bytes.
    package var name: String?
    /// Unix seconds; nil is never.
    package var expiresAtSeconds: Int64?
    /// Windows that override the tier's, like `5000/minute,200/second`.
    package var limits: String?

    /// A request; `KeyStore.prepare` checks it.
    package init(
        account: String?, tier: String, scopes: ScopeSet, name: String?, expiresAtSeconds: Int64?,
        limits: String?
    ) {
        self.account = account
        self.tier = tier
        self.scopes = scopes
        self.name = name
        self.expiresAtSeconds = expiresAtSeconds
        self.limits = limits
    }
}

/// A new key with its record, before anything is written.
package struct PreparedKey: ~Copyable {
    /// What is to be stored.
    package let record: KeyRecord
    /// What is to be shown, once.
    package let secret: KeySecret
}

/// A key with what the store knows beside its record.
package struct StoredKey: Sendable {
    /// The record as it stands.
    package var record: KeyRecord
    /// Unix seconds of the last use, as far as it has been written down.
    package var lastSeenSeconds: Int64?
    /// Whether it stands in the configuration, where only an editor changes it.
    package var isStatic: Bool
}

/// Who does something, for the audit trail.
package struct Actor: Sendable {
    /// A person or a program.
    package var name: String
    /// Where it was done from.
    package var origin: String

    /// Somebody, and where from.
    package init(name: String, origin: String) {
        self.name = name
        self.origin = origin
    }
}

/// The keys of one configuration: those it declares itself, and those of its store. For one thread.
package final class KeyStore {
    /// Lines of the audit trail that are kept, about.
    private static let auditLinesMax = 100_000
    /// Keys that one listing returns at most.
    package static let pageMax = 1_000

    private let configuration: GatewayConfiguration
    private let client: RedisClient?
    private let prefix: String

    /// Connects to the configured store.
    ///
    /// - Parameter timeoutMilliseconds: for every command.
    package init(
        _ configuration: GatewayConfiguration, timeoutMilliseconds: Int = 2_000
    ) throws(KeyStoreProblem) {
        self.configuration = configuration
        prefix = configuration.store.prefix
        guard let options = StoreOptions(configuration.store) else {
            guard configuration.store.endpoint == .memory else {
                throw .refused("this kind of store url is not supported yet; use redis:// or rediss://")
            }
            client = nil
            return
        }
        do {
            client = try RedisClient(options, timeoutMilliseconds: timeoutMilliseconds)
        } catch {
            throw .unavailable(error.text)
        }
    }

    /// Whether keys live in the configuration only.
    package var isMemory: Bool { client == nil }

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

    /// Makes a key and its record; nothing is written yet.
    package func prepare(
        _ request: KeyRequest
    ) throws(KeyStoreProblem) -> PreparedKey {
        guard configuration.tiers.contains(where: { $0.name == request.tier }) else {
            let names = configuration.tiers.map(\.name).joined(separator: ", ")
            throw .refused("unknown tier \"\(request.tier)\"; there are \(names)")
        }
        if let limits = request.limits {
            do {
                _ = try LimitSpecification.parse(limits)
            } catch {
                throw .refused(error.text)
            }
        }
        if let account = request.account, !KeyRecord.isIdentifier(account) {
            throw .refused("an account is 1 to 128 printable characters without braces")
        }
        guard let format = KeyFormat(prefixes: configuration.keys.prefixes) else {
            throw .refused("the configured key prefixes cannot be used")
        }
        let secret = format.generate { (span: inout MutableSpan<UInt8>) in
            let random = RandomSource.bytes(span.count)
            for index in 0..<span.count { span[index] = random[index] }
        }
        let record = try record(for: secret, request)
        do {
            // The data plane reads it the same way: what it would refuse must not be written at all.
            _ = try KeyRecord(digest: record.digest, fields: record.fields) { _ in true }
        } catch {
            throw .refused("such a key could not be used: \(error.text)")
        }
        return PreparedKey(record: record, secret: secret)
    }

    private func record(
        for secret: borrowing KeySecret, _ request: KeyRequest
    ) throws(KeyStoreProblem) -> KeyRecord {
        var record = KeyRecord(digest: try Self.digest(of: secret.bytes, configuration), tier: request.tier)
        if let account = request.account { record.account = account }
        record.scopes = request.scopes
        record.name = request.name
        record.hint = secret.hint
        record.createdAtSeconds = WallClock.nowSeconds()
        record.expiresAtSeconds = request.expiresAtSeconds
        record.limits = request.limits
        return record
    }

    /// Writes a new record.
    package func insert(_ record: KeyRecord, by actor: Actor) throws(KeyStoreProblem) {
        let digest = record.digest.hexadecimal
        var hash = ["HSET", "\(prefix)key:\(digest)"]
        for field in record.fields { hash += [field.name, field.value] }
        try change([
            hash, ["SET", "\(prefix)id:\(record.id)", digest],
            ["ZADD", "\(prefix)keys", "\(record.createdAtSeconds ?? 0)", record.id],
            audit("create", record, actor, reason: nil),
        ])
    }

    /// Takes a key away for good.
    package func revoke(_ id: String, reason: String?, by actor: Actor) throws(KeyStoreProblem) -> KeyRecord {
        let found = try find(id: id)
        guard !found.isStatic else {
            throw .refused("\(id) stands in the configuration: take it out of keys.static")
        }
        var record = found.record
        record.status = .revoked
        try change([
            ["HSET", "\(prefix)key:\(record.digest.hexadecimal)", "status", "revoked"],
            audit("revoke", record, actor, reason: reason),
        ])
        return record
    }

    /// Writes down that a key came in clear.
    ///
    /// - Returns: its record, nil when no such key exists.
    package func recordExposure(
        _ digest: Digest256, revoking: Bool, by actor: Actor
    ) throws(KeyStoreProblem) -> KeyRecord? {
        guard let stored = try find(digest: digest) else { return nil }
        guard !stored.isStatic, client != nil else { return stored.record }
        var commands = [audit("exposed", stored.record, actor, reason: "sent in clear")]
        if revoking, stored.record.status != .revoked {
            commands.append(["HSET", "\(prefix)key:\(digest.hexadecimal)", "status", "revoked"])
            commands.append(audit("revoke", stored.record, actor, reason: "sent in clear"))
        }
        try change(commands)
        return stored.record
    }

    /// A key by its id.
    package func find(id: String) throws(KeyStoreProblem) -> StoredKey {
        if let record = configuration.keys.staticKeys.first(where: { $0.id == id }) {
            return StoredKey(record: record, lastSeenSeconds: nil, isStatic: true)
        }
        guard client != nil else { throw .refused("there is no key \(id)") }
        if let hex = try run(["GET", "\(prefix)id:\(id)"]).text, let digest = Digest256(hex: hex),
            let found = try find(digest: digest)
        {
            return found
        }
        // Records that other programs write need not have an entry by id: the default id leads to the digest.
        if id.hasPrefix("key_"), id.utf8.count == 20, let digest = try scan(for: id.dropFirst(4)),
            let found = try find(digest: digest)
        {
            return found
        }
        throw .refused("there is no key \(id)")
    }

    /// A key by its digest, nil when there is none.
    package func find(digest: Digest256) throws(KeyStoreProblem) -> StoredKey? {
        if let record = configuration.keys.staticKeys.first(where: { $0.digest == digest }) {
            return StoredKey(record: record, lastSeenSeconds: nil, isStatic: true)
        }
        guard let client else { return nil }
        let value: RedisValue
        do {
            value = try client.command(["HGETALL", "\(prefix)key:\(digest.hexadecimal)"])
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
        let seen = try run(["HGET", "\(prefix)seen", record.id]).text
        return StoredKey(record: record, lastSeenSeconds: seen.flatMap { Int64($0) }, isStatic: false)
    }

    private func scan(for digits: Substring) throws(KeyStoreProblem) -> Digest256? {
        guard digits.allSatisfy(\.isHexDigit) else { return nil }
        var cursor = "0"
        repeat {
            let value = try run(["SCAN", cursor, "MATCH", "\(prefix)key:\(digits)*", "COUNT", "1000"])
            guard let elements = value.elements, elements.count == 2, let next = elements[0].text else {
                return nil
            }
            if let name = elements[1].elements?.first?.text { return Digest256(hex: String(name.suffix(64))) }
            cursor = next
        } while cursor != "0"
        return nil
    }

    /// Keys of the configuration and of the store, the newest first.
    ///
    /// Every record of the store is looked at, and of those that fit the newest `pageMax` are kept. Records
    /// that cannot be used are left out: they refuse their keys anyway.
    package func list(account: String?, tier: String?) throws(KeyStoreProblem) -> [StoredKey] {
        func fits(_ record: KeyRecord) -> Bool {
            (account == nil || record.account == account) && (tier == nil || record.tier == tier)
        }
        var keys = configuration.keys.staticKeys.filter(fits).map {
            StoredKey(record: $0, lastSeenSeconds: nil, isStatic: true)
        }
        guard let client else { return keys.sorted(by: Self.isNewer) }
        let staticDigests = Set(configuration.keys.staticKeys.map(\.digest))
        var found: [Digest256: StoredKey] = [:]
        var cursor = "0"
        // By SCAN and not by the sorted set: records of other programs are keys too.
        repeat {
            let value = try run(["SCAN", cursor, "MATCH", "\(prefix)key:*", "COUNT", "1000"])
            guard let elements = value.elements, elements.count == 2, let next = elements[0].text else {
                throw .unavailable("the store answered SCAN with something else")
            }
            // SCAN may name a record twice; the configuration's keys hide the store's.
            let digests = (elements[1].elements ?? []).compactMap { name in
                name.text.flatMap { Digest256(hex: String($0.suffix(Digest256.hexadecimalCount))) }
            }.filter { !staticDigests.contains($0) }
            for record in try records(of: digests, client) where fits(record) {
                found[record.digest] = StoredKey(record: record, lastSeenSeconds: nil, isStatic: false)
            }
            if found.count > 2 * Self.pageMax { found = Self.newest(found) }
            cursor = next
        } while cursor != "0"
        keys += try withLastUse(Array(Self.newest(found).values))
        return keys.sorted(by: Self.isNewer)
    }

    private static func isNewer(_ one: StoredKey, _ other: StoredKey) -> Bool {
        (one.record.createdAtSeconds ?? 0, one.record.id)
            > (other.record.createdAtSeconds ?? 0, other.record.id)
    }

    private static func newest(_ keys: [Digest256: StoredKey]) -> [Digest256: StoredKey] {
        guard keys.count > pageMax else { return keys }
        let kept = keys.values.sorted(by: isNewer).prefix(pageMax)
        return Dictionary(kept.map { ($0.record.digest, $0) }) { first, _ in first }
    }

    /// The records that can be used, in one exchange.
    private func records(
        of digests: [Digest256], _ client: RedisClient
    ) throws(KeyStoreProblem) -> [KeyRecord] {
        guard !digests.isEmpty else { return [] }
        let values: [RedisValue]
        do {
            values = try client.pipeline(digests.map { ["HGETALL", "\(prefix)key:\($0.hexadecimal)"] })
        } catch {
            throw .unavailable(error.text)
        }
        var records: [KeyRecord] = []
        for (digest, value) in zip(digests, values) {
            if case .error(let text) = value, !text.hasPrefix("WRONGTYPE") { throw .unavailable(text) }
            // A record that went away since is empty.
            guard let fields = value.fields, !fields.isEmpty,
                let record = try? KeyRecord(digest: digest, fields: fields, isTier: { _ in true })
            else { continue }
            records.append(record)
        }
        return records
    }

    private func withLastUse(_ keys: [StoredKey]) throws(KeyStoreProblem) -> [StoredKey] {
        guard !keys.isEmpty else { return [] }
        let seen = try run(["HMGET", "\(prefix)seen"] + keys.map(\.record.id)).elements ?? []
        return zip(keys, seen).map { key, second in
            var key = key
            key.lastSeenSeconds = second.text.flatMap { Int64($0) }
            return key
        }
    }

    // MARK: Commands

    private func audit(
        _ action: String, _ record: KeyRecord, _ actor: Actor, reason: String?
    ) -> [String] {
        var command = [
            "XADD", "\(prefix)audit", "MAXLEN", "~", "\(Self.auditLinesMax)", "*", "action", action, "id",
            record.id,
            "account", record.account, "actor", actor.name, "from", actor.origin,
        ]
        if let reason { command += ["reason", reason] }
        return command
    }

    private func change(_ commands: [[String]]) throws(KeyStoreProblem) {
        guard let client else { throw .refused("the memory store keeps no keys; use keys.static") }
        do {
            let values = try client.pipeline([["MULTI"]] + commands + [["EXEC"]])
            for value in values {
                if case .error(let text) = value { throw RedisError.server(text) }
            }
            for value in values.last?.elements ?? [] {
                if case .error(let text) = value { throw RedisError.server(text) }
            }
        } catch let error as RedisError {
            throw .unavailable(error.text)
        } catch {
            throw .unavailable("the store failed")
        }
    }

    private func run(_ command: [String]) throws(KeyStoreProblem) -> RedisValue {
        guard let client else { throw .refused("the memory store keeps no keys") }
        do {
            return try client.command(command)
        } catch {
            throw .unavailable(error.text)
        }
    }
}

extension StoreOptions {
    /// How to reach the configured store; nil for the memory store and kinds that are not supported.
    package init?(_ store: StoreConfiguration) {
        let transport: Transport
        switch store.endpoint {
        case .memory, .sentinel, .cluster: return nil
        case .redis(let host, let port, let tls): transport = .tcp(host: host, port: port, tls: tls)
        case .unixSocket(let path): transport = .unixSocket(path: path)
        }
        self.init(
            transport: transport,
            credentials: StoreCredentials(user: store.user, password: store.password?.reveal()),
            database: store.database, caPath: store.caPath)
    }
}
