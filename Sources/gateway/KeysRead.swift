import ArgumentParser
import KeyManagement
import Keys

extension KeysCommand {
    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List keys, the newest first.",
            discussion: """
                Keys that are older than 90 days or have not been used for 90 days are marked as due for \
                rotation.
                """)

        @OptionGroup var options: Options
        @Option(help: "Only keys of this account.") var account: String?
        @Option(help: "Only keys of this tier.") var tier: String?
        @Option(help: "Only keys in this condition.") var status: KeyFilter.Status?
        @Option(help: "Only keys with this text in their id, name or hint.") var search: String?
        @Flag(help: "Only keys that are due for rotation.") var due = false
        @Option(help: "At most this many keys, 1 to 1000.") var limit = KeyStore.pageMax
        @Option(help: "Go on where another list ended.") var cursor: String?
        @Flag(help: "All keys, however many.") var all = false

        func run() throws {
            let (store, _) = try options.open()
            let filter = KeyFilter(
                account: account, tier: tier, status: status, text: search, isDue: due)
            var keys: [StoredKey] = []
            var next = cursor
            repeat {
                let page = try KeysCommand.run { () throws(KeyStoreProblem) in
                    try store.list(filter, after: next, limit: limit)
                }
                keys += page.keys
                next = page.nextCursor
            } while next != nil && (all || keys.isEmpty)
            if options.output == .json {
                Console.out("[" + keys.map { KeyJSON.object($0) }.joined(separator: ",\n ") + "]")
            } else {
                Console.out(KeyText.table(Self.rows(keys)))
            }
            if let next { Console.error("there are more keys: --cursor \(next), or --all") }
        }

        private static func rows(_ keys: [StoredKey]) -> [[String]] {
            var rows = [
                ["ID", "ACCOUNT", "TIER", "STATUS", "SCOPES", "EXPIRES", "LAST USED", "ROTATION", "NAME"]
            ]
            for key in keys {
                let record = key.record
                rows.append([
                    record.id, record.account, record.tier, key.status().rawValue, KeyText.scopes(record),
                    record.expiresAtSeconds.map(KeyText.time) ?? "never",
                    key.lastSeenSeconds.map(KeyText.time) ?? "-", KeyText.rotation(key), record.name ?? "-",
                ])
            }
            return rows
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a key by its id, or the key that stands on standard input.")

        @OptionGroup var options: Options
        @Argument(help: "The key's id; left out, a key is read from standard input.") var id: String?

        func run() throws {
            let key = try id == nil ? KeysCommand.readKey() : []
            let (store, configuration) = try options.open()
            let found = try KeysCommand.run { () throws(KeyStoreProblem) -> StoredKey in
                if let id { return try store.find(id: id) }
                let digest = try KeyStore.digest(of: key.span, configuration)
                guard let found = try store.find(digest: digest) else {
                    throw .notFound("there is no such key")
                }
                return found
            }
            if options.output == .json {
                Console.out(KeyJSON.object(found))
                return
            }
            Console.out(KeyText.table(KeyText.details(found)))
        }
    }

    struct Verify: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Say whether the gateway would let a key in; the exit status is 0 if so, and 1 if not.",
            discussion: "Reads the key from standard input, or looks a key up by its id.")

        @OptionGroup var options: Options
        @Argument(help: "The key's id; left out, a key is read from standard input.") var id: String?

        func run() throws {
            let key = try id == nil ? KeysCommand.readKey() : []
            let (store, _) = try options.open()
            let verification = try KeysCommand.run { () throws(KeyStoreProblem) in
                if let id { return try store.verify(id: id) }
                return try store.verify(key.span)
            }
            let verdict = verification.verdict
            if options.output == .json {
                var members = ["\"verdict\":\"\(verdict.rawValue)\""]
                if let problem = verification.problem {
                    members.append("\"problem\":\(KeyJSON.string(problem))")
                }
                if let key = verification.key { members.append("\"record\":\(KeyJSON.object(key))") }
                Console.out("{" + members.joined(separator: ",") + "}")
            } else {
                let reason = verification.problem.map { ": \($0)" } ?? ""
                let about = verification.key.map { " (\(KeyText.summary($0.record)))" } ?? ""
                Console.out(KeyText.visible(verdict.rawValue + reason + about))
            }
            guard verdict == .valid else { throw ExitCode(Status.refused) }
        }
    }
}

extension KeyFilter.Status: ExpressibleByArgument {}
