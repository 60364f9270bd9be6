import ArgumentParser
import Configuration
import DataPlane
import Foundation
import KeyManagement
import Keys
import Reactor

struct KeysCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys", abstract: "Create, list, show and revoke API keys.",
        subcommands: [Create.self, List.self, Show.self, Revoke.self])

    enum Output: String, ExpressibleByArgument, CaseIterable { case table, json }

    struct Options: ParsableArguments {
        @OptionGroup var file: ConfigurationOption

        @Option(help: "How to print.")
        var output = Output.table

        /// Opens the store.
        func open() throws -> (KeyStore, GatewayConfiguration) {
            let configuration = try file.load()
            return (
                try KeysCommand.run { () throws(KeyStoreProblem) in try KeyStore(configuration) },
                configuration
            )
        }
    }

    /// Turns problems into a sentence and an exit status.
    static func run<Result>(_ body: () throws(KeyStoreProblem) -> Result) throws -> Result {
        do {
            return try body()
        } catch {
            switch error {
            case .unavailable(let text):
                throw fail(Status.unavailable, "the store cannot be reached: \(text)")
            default: throw fail(Status.refused, error.text)
            }
        }
    }

    static var actor: KeyManagement.Actor {
        let user = Environment.all()["SUDO_USER"] ?? Environment.all()["USER"] ?? "unknown"
        return KeyManagement.Actor(name: user, origin: "command line on \(ProcessInfo.processInfo.hostName)")
    }
}

extension KeysCommand {
    struct Create: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create a key and print it once.",
            discussion: "With the memory store, prints the entry of keys.static to paste as well.")

        @OptionGroup var options: Options
        @Option(help: "The tier of its limits.") var tier: String
        @Option(help: "Whom its calls are charged to; the key's own id when left out.") var account: String?
        @Option(name: .customLong("scope"), help: "A scope it holds; may be repeated.") var scopes: [String] =
            []
        @Option(help: "How long it is valid: 90d, 24h, or never.") var expires = "90d"
        @Option(help: "What its owner calls it.") var name: String?
        @Option(help: "Limits that override the tier's, like 5000/minute,200/second.") var limits: String?

        func run() throws {
            guard let duration = KeyText.duration(expires) else {
                throw ValidationError("--expires is a duration like 90d or 24h, or never.")
            }
            var list: [Scope] = []
            for text in scopes {
                guard let scope = Scope(text) else { throw ValidationError("\"\(text)\" is not a scope.") }
                list.append(scope)
            }
            guard let set = ScopeSet(list) else { throw ValidationError("These are too many scopes.") }
            if let name, name.utf8.count > KeyRecord.textBytesMax {
                throw ValidationError("--name is at most \(KeyRecord.textBytesMax) bytes.")
            }
            let (store, _) = try options.open()
            let request = KeyRequest(
                account: account, tier: tier, scopes: set, name: name,
                expiresAtSeconds: duration.map { WallClock.nowSeconds() + $0 }, limits: limits)
            let made = try KeysCommand.run { () throws(KeyStoreProblem) in try Made(store, request) }
            if options.output == .json {
                Console.out(KeyText.json(made.record, key: made.text, lastSeen: nil))
            } else {
                Console.out(
                    "\(made.text)\n\nThis is the only time the key is shown. It is \(made.record.id), "
                        + "tier \(made.record.tier), account \(made.record.account), "
                        + "\(KeyText.expiry(made.record.expiresAtSeconds)).")
                if store.isMemory {
                    Console.out(
                        "\nThe memory store keeps no keys. Put this under keys.static:\n\n    "
                            + KeyText.staticEntry(made.record))
                }
            }
        }
    }

    /// A new key as text: the one place where it is revealed.
    private struct Made {
        let record: KeyRecord
        let text: String

        init(_ store: KeyStore, _ request: KeyRequest) throws(KeyStoreProblem) {
            guard store.isMemory else {
                let created = try store.create(request, by: KeysCommand.actor)
                record = created.key.record
                text = created.reveal() ?? ""
                return
            }
            let prepared = try store.prepare(request)
            record = prepared.record
            text = prepared.secret.reveal()
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List keys, the newest first.")

        @OptionGroup var options: Options
        @Option(help: "Only keys of this account.") var account: String?
        @Option(help: "Only keys of this tier.") var tier: String?

        func run() throws {
            let (store, _) = try options.open()
            let keys = try KeysCommand.run { () throws(KeyStoreProblem) in
                try store.list(KeyFilter(account: account, tier: tier), limit: KeyStore.pageMax).keys
            }
            if options.output == .json {
                let lines = keys.map { KeyText.json($0.record, key: nil, lastSeen: $0.lastSeenSeconds) }
                Console.out("[" + lines.joined(separator: ",\n ") + "]")
                return
            }
            var rows = [["ID", "ACCOUNT", "TIER", "STATUS", "SCOPES", "EXPIRES", "LAST USED", "NAME"]]
            for key in keys {
                let record = key.record
                rows.append([
                    record.id, record.account, record.tier, KeyText.status(record),
                    record.scopes.text.isEmpty ? "-" : record.scopes.text,
                    record.expiresAtSeconds.map(KeyText.day) ?? "never",
                    key.lastSeenSeconds.map(KeyText.day) ?? "-", record.name ?? "-",
                ])
            }
            Console.out(KeyText.table(rows))
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a key by its id, or the key that stands on standard input.")

        @OptionGroup var options: Options
        @Argument(help: "The key's id; left out, a key is read from standard input.") var id: String?

        func run() throws {
            let (store, configuration) = try options.open()
            let found = try KeysCommand.run { () throws(KeyStoreProblem) -> StoredKey in
                if let id { return try store.find(id: id) }
                let line = (readLine() ?? "").utf8.filter { $0 > 0x20 }
                guard !line.isEmpty else {
                    throw .refused("no key on standard input; give an id or pipe a key in")
                }
                let digest = try KeyStore.digest(of: line.span, configuration)
                guard let found = try store.find(digest: digest) else {
                    throw .refused("there is no such key")
                }
                return found
            }
            if options.output == .json {
                Console.out(KeyText.json(found.record, key: nil, lastSeen: found.lastSeenSeconds))
                return
            }
            var rows = found.record.fields.map { [$0.name, $0.value] }
            if let seen = found.lastSeenSeconds { rows.append(["last_used", KeyText.day(seen)]) }
            rows.append(["stands in", found.isStatic ? "the configuration" : "the store"])
            Console.out(KeyText.table(rows))
        }
    }

    struct Revoke: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Take a key away for good.")

        @OptionGroup var options: Options
        @Argument(help: "The key's id.") var id: String
        @Option(help: "Why, for the audit trail.") var reason: String?

        func run() throws {
            let (store, _) = try options.open()
            let record = try KeysCommand.run { () throws(KeyStoreProblem) in
                try store.revoke(id, reason: reason, by: KeysCommand.actor).record
            }
            if options.output == .json {
                Console.out(KeyText.json(record, key: nil, lastSeen: nil))
            } else {
                Console.out("\(record.id) is revoked.")
            }
        }
    }
}
