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

    package var text: String {
        switch self {
        case .unavailable(let text), .refused(let text): return text
        }
    }
}

/// What a new key is to be.
package struct KeyRequest: Sendable {
    package var account: String?
    package var tier: String
    package var scopes: ScopeSet
    package var name: String?
    /// Unix seconds; nil is never.
    package var expiresAtSeconds: Int64?
    package var limits: String?

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
    package let record: KeyRecord
    package let secret: KeySecret
}

/// A key with what the store knows beside its record.
package struct StoredKey: Sendable {
    package var record: KeyRecord
    /// Unix seconds of the last use, as far as it has been written down.
    package var lastSeenSeconds: Int64?
    /// Whether it stands in the configuration, where only an editor changes it.
    package var isStatic: Bool
}

/// Who does something, for the audit trail.
package struct Actor: Sendable {
    package var name: String
    package var origin: String

    package init(name: String, origin: String) {
        self.name = name
        self.origin = origin
    }
}

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
        guard client != nil else { return nil }
        let value = try run(["HGETALL", "\(prefix)key:\(digest.hexadecimal)"])
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

    /// All keys: those of the configuration, then the newest of the store.
    package func list(account: String?, tier: String?) throws(KeyStoreProblem) -> [StoredKey] {
        var keys = configuration.keys.staticKeys.map {
            StoredKey(record: $0, lastSeenSeconds: nil, isStatic: true)
        }
        if client != nil {
            var digests: [Digest256] = []
            var cursor = "0"
            // By SCAN and not by the sorted set: records of other programs are keys too.
            repeat {
                let value = try run(["SCAN", cursor, "MATCH", "\(prefix)key:*", "COUNT", "1000"])
                guard let elements = value.elements, elements.count == 2, let next = elements[0].text else {
                    throw .unavailable("the store answered SCAN with something else")
                }
                for name in elements[1].elements ?? [] {
                    if let digest = name.text.flatMap({ Digest256(hex: String($0.suffix(64))) }),
                        !digests.contains(digest)
                    {
                        digests.append(digest)
                    }
                }
                cursor = next
            } while cursor != "0" && digests.count < Self.pageMax
            for digest in digests {
                if let found = try? find(digest: digest) { keys.append(found) }
            }
        }
        return keys.filter { key in
            (account == nil || key.record.account == account) && (tier == nil || key.record.tier == tier)
        }
        .sorted {
            ($0.record.createdAtSeconds ?? 0, $0.record.id) > ($1.record.createdAtSeconds ?? 0, $1.record.id)
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
