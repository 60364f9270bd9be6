import ArgumentParser
import KeyManagement
import Keys
import Reactor

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
        @Option(help: "What its owner calls it; no two usable keys of an account share a name.")
        var name: String?
        @Option(help: "Limits that override the tier's, like 5000/minute,200/second.") var limits: String?

        func validate() throws {
            _ = try KeyOptions.expiry(expires)
            _ = try KeyOptions.scopes(scopes)
        }

        func run() throws {
            let expiry = try KeyOptions.expiry(expires)
            let scopes = try KeyOptions.scopes(scopes)
            let (store, _) = try options.open()
            let request = KeyRequest(
                account: account, tier: tier, scopes: scopes, name: name, expiresAtSeconds: expiry,
                limits: limits)
            try Reveal.prepare()
            let made = try KeysCommand.run { () throws(KeyStoreProblem) in try Made(store, request) }
            let record = made.key.record
            if options.output == .json {
                try Reveal.show(
                    KeyJSON.object(made.key, secret: made.text, isPassing: store.isMemory), of: record,
                    isKept: !store.isMemory)
                return
            }
            var text =
                "\(made.text)\n\nThis is the only time the key is shown. It is \(record.id), "
                + "tier \(record.tier), account \(record.account), "
                + "\(KeyText.expiry(record.expiresAtSeconds))."
            if store.isMemory {
                text +=
                    "\n\nThe memory store keeps no keys. Put this under keys.static:\n\n    "
                    + KeyJSON.staticEntry(record)
            }
            try Reveal.show(text, of: record, isKept: !store.isMemory)
        }
    }

    /// Shows what is shown once, and says so when it could not be.
    private enum Reveal {
        /// - Throws: `ExitCode` 1 when standard output takes nothing: then no key is to be made.
        static func prepare() throws {
            // A reader that goes is an error to report, and not the end of the program.
            Signals.ignoreLostReaders()
            guard Console.canShow else {
                throw fail(Status.refused, "standard output cannot be written; no key was made")
            }
        }

        /// - Parameter isKept: whether the key stands in a store now.
        static func show(_ text: String, of record: KeyRecord, isKept: Bool = true) throws {
            guard !Console.out(text) else { return }
            throw fail(
                Status.refused,
                isKept
                    ? "key \(record.id) was made but could not be shown: rotate or revoke it"
                    : "the key could not be shown, and is kept nowhere: make another")
        }
    }

    /// A new key as text: one of the two places where it is revealed.
    private struct Made {
        let key: StoredKey
        let text: String

        init(_ store: KeyStore, _ request: KeyRequest) throws(KeyStoreProblem) {
            guard store.isMemory else {
                let created = try store.create(request, by: KeysCommand.actor)
                key = created.key
                text = created.reveal() ?? ""
                return
            }
            let prepared = try store.prepare(request)
            key = StoredKey(unsaved: prepared.record)
            text = prepared.secret.reveal()
        }
    }

    struct Rotate: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Replace a key by a new one with the same settings, and print that once.",
            discussion: """
                Both keys are valid during the overlap, which ends at the old key's own expiry at the \
                latest. The new key gets the lifetime that the old one was made for, beginning now.
                """)

        @OptionGroup var options: Options
        @OptionGroup var confirmation: Confirmation
        @Argument(help: "The id of the key to replace.") var id: String
        @Option(help: "How long the old key stays valid: 24h, 15m, or now.") var overlap = "24h"
        @Option(help: "How long the new key is valid: 90d, 24h, or never.") var expires: String?
        @Option(help: "Why, for the audit trail.") var reason: String?
        @Option(help: "Only if the key is still of this version, as show prints it.") var ifVersion: String?

        func validate() throws {
            _ = try KeyOptions.overlap(overlap)
            _ = try expires.map(KeyOptions.expiry)
        }

        func run() throws {
            let seconds = try KeyOptions.overlap(overlap)
            let expiry: Setting<Int64> =
                try expires.map { try KeyOptions.expiry($0).map(Setting.set) ?? .clear } ?? .keep
            let (store, _) = try options.open()
            let found = try KeysCommand.run { () throws(KeyStoreProblem) in try store.find(id: id) }
            try confirmation.ask(
                "Replace \(KeyText.summary(found.record))? It ends "
                    + (seconds == 0 ? "now." : "in \(overlap)."))
            try Reveal.prepare()
            let (key, old, text, warning) = try KeysCommand.run { () throws(KeyStoreProblem) in
                let rotated = try store.rotate(
                    id, overlapSeconds: seconds, expiresAtSeconds: expiry, reason: reason, version: ifVersion,
                    by: KeysCommand.actor)
                return (rotated.key, rotated.old, rotated.secret.reveal(), rotated.warning)
            }
            // Last, where it is read; and no failure, because the new key is there.
            defer { if let warning { Console.error("gateway: \(warning)") } }
            if options.output == .json {
                try Reveal.show(KeyJSON.object(key, secret: text), of: key.record)
                return
            }
            let end = old.record.expiresAtSeconds.map(KeyText.time) ?? "never"
            try Reveal.show(
                "\(text)\n\nThis is the only time the key is shown. It is \(key.record.id) and replaces "
                    + "\(old.record.id), which "
                    + (seconds == 0 && warning == nil ? "has ended." : "stays valid until \(end).")
                    + " The new key is \(KeyText.expiry(key.record.expiresAtSeconds)).", of: key.record)
        }
    }
}
