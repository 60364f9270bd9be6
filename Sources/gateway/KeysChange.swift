import ArgumentParser
import KeyManagement
import Keys

extension KeysCommand {
    struct Update: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change a key's name, tier, scopes, limits or expiry.",
            discussion: "Acts on the next call, and resets no limit. What is not named stays as it is.")

        @OptionGroup var options: Options
        @Argument(help: "The key's id.") var id: String
        @Option(help: "The tier of its limits.") var tier: String?
        @Option(name: .customLong("scope"), help: "A scope it holds from now on; may be repeated.")
        var scopes: [String] = []
        @Flag(help: "Take all scopes away.") var noScopes = false
        @Option(help: "What its owner calls it.") var name: String?
        @Flag(help: "Take the name away.") var noName = false
        @Option(help: "Limits that override the tier's, like 5000/minute,200/second.") var limits: String?
        @Flag(help: "Return to the tier's limits.") var noLimits = false
        @Option(help: "How long it is valid from now on: 90d, 24h, or never.") var expires: String?
        @Option(help: "Why, for the audit trail.") var reason: String?
        @Option(help: "Only if the key is still of this version, as show prints it.") var ifVersion: String?

        func validate() throws {
            if noScopes, !scopes.isEmpty { throw ValidationError("--scope and --no-scopes contradict.") }
            if noName, name != nil { throw ValidationError("--name and --no-name contradict.") }
            if noLimits, limits != nil { throw ValidationError("--limits and --no-limits contradict.") }
            let names: [Bool] = [
                tier != nil, !scopes.isEmpty, noScopes, name != nil, noName, limits != nil, noLimits,
                expires != nil,
            ]
            _ = try KeyOptions.scopes(scopes)
            _ = try expires.map(KeyOptions.expiry)
            guard names.contains(true) else { throw ValidationError("Nothing to change was named.") }
        }

        func run() throws {
            var changes = KeyChanges()
            changes.tier = tier
            if noScopes { changes.scopes = ScopeSet.none }
            if !scopes.isEmpty { changes.scopes = try KeyOptions.scopes(scopes) }
            changes.name = noName ? .clear : name.map(Setting.set) ?? .keep
            changes.limits = noLimits ? .clear : limits.map(Setting.set) ?? .keep
            if let expires {
                changes.expiresAtSeconds = try KeyOptions.expiry(expires).map(Setting.set) ?? .clear
            }
            let (store, _) = try options.open()
            let key = try KeysCommand.run { () throws(KeyStoreProblem) in
                try store.update(id, changes, version: ifVersion, reason: reason, by: KeysCommand.actor)
            }
            let record = key.record
            KeysCommand.show(
                key, options,
                "\(record.id) is changed: tier \(KeyText.visible(record.tier)), "
                    + "scopes \(KeyText.scopes(record)), "
                    + "\(KeyText.expiry(record.expiresAtSeconds)).")
        }
    }

    struct Disable: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Switch a key off; `enable` switches it on again.")

        @OptionGroup var options: Options
        @Argument(help: "The key's id.") var id: String
        @Option(help: "Why, for the audit trail.") var reason: String?

        func run() throws {
            let (store, _) = try options.open()
            let key = try KeysCommand.run { () throws(KeyStoreProblem) in
                try store.disable(id, reason: reason, by: KeysCommand.actor)
            }
            KeysCommand.show(key, options, "\(key.record.id) is disabled.")
        }
    }

    struct Enable: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Switch a disabled key on again.")

        @OptionGroup var options: Options
        @Argument(help: "The key's id.") var id: String
        @Option(help: "Why, for the audit trail.") var reason: String?

        func run() throws {
            let (store, _) = try options.open()
            let key = try KeysCommand.run { () throws(KeyStoreProblem) in
                try store.enable(id, reason: reason, by: KeysCommand.actor)
            }
            let note = key.status() == .expired ? ", but has expired" : ""
            KeysCommand.show(key, options, "\(key.record.id) is enabled\(note).")
        }
    }

    struct Revoke: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take a key away for good.",
            discussion: "Gateways refuse it within a second. To switch a key off for a while, use `disable`.")

        @OptionGroup var options: Options
        @OptionGroup var confirmation: Confirmation
        @Argument(help: "The key's id.") var id: String
        @Option(help: "Why, for the audit trail.") var reason: String?

        func run() throws {
            let (store, _) = try options.open()
            let found = try KeysCommand.run { () throws(KeyStoreProblem) in try store.find(id: id) }
            if found.record.status != .revoked {
                try confirmation.ask("Revoke \(KeyText.summary(found.record))? This is final.")
            }
            let key = try KeysCommand.run { () throws(KeyStoreProblem) in
                try store.revoke(id, reason: reason, by: KeysCommand.actor)
            }
            KeysCommand.show(key, options, "\(key.record.id) is revoked.")
        }
    }
}
