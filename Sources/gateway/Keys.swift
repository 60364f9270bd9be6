import ArgumentParser
import Configuration
import Foundation
import Glibc
import KeyManagement
import Keys
import Reactor

struct KeysCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys", abstract: "Create, list, change, replace and revoke API keys.",
        discussion: """
            A key is shown once, when it is made, and is read from standard input, never from an argument: \
            arguments are seen by everybody on the machine and kept in histories.

            Exit status: 0 done, 1 refused, 64 usage, 69 the store cannot be reached, 78 configuration.
            """,
        subcommands: [
            Create.self, List.self, Show.self, Update.self, Disable.self, Enable.self, Revoke.self,
            Rotate.self, Verify.self, Scan.self,
        ])

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
            case .invalid, .notFound, .conflict, .changed, .refused:
                throw fail(Status.refused, KeyText.visible(error.text))
            }
        }
    }

    static var actor: KeyManagement.Actor {
        let user = Environment.all()["SUDO_USER"] ?? NSUserName()
        return KeyManagement.Actor(name: user, origin: "command line on \(ProcessInfo.processInfo.hostName)")
    }

    /// A key from standard input, without the blanks around it.
    static func readKey() throws -> [UInt8] {
        if isatty(STDIN_FILENO) == 1 { Console.error("Paste the key and press Enter:") }
        let line = (readLine() ?? "").utf8.filter { $0 > 0x20 }
        guard !line.isEmpty else {
            throw fail(Status.usage, "no key on standard input; give an id, or pipe a key in")
        }
        return Array(line)
    }

    /// Prints one key that was changed.
    static func show(_ key: StoredKey, _ options: Options, _ sentence: String) {
        Console.out(options.output == .json ? KeyJSON.object(key) : sentence)
    }
}

/// Asks before something is done that cannot be taken back, where somebody is there to answer.
struct Confirmation: ParsableArguments {
    @Flag(name: .shortAndLong, help: "Do not ask.")
    var yes = false

    /// - Throws: `ExitCode` 1 when the answer is no.
    func ask(_ question: String) throws {
        guard !yes, isatty(STDIN_FILENO) == 1, isatty(STDERR_FILENO) == 1 else { return }
        Console.error("\(question) [y/N]")
        guard ["y", "yes"].contains(readLine()?.lowercased() ?? "") else {
            throw fail(Status.refused, "nothing was done")
        }
    }
}

/// Texts of options as values. What is wrong is found by `validate` first: only from there does the usage of
/// the command go with the error.
enum KeyOptions {
    static func scopes(_ texts: [String]) throws -> ScopeSet {
        var list: [Scope] = []
        for text in texts {
            // `--scope "a b"` is two, as in a record.
            for part in text.split(separator: " ") {
                guard let scope = Scope(String(part)) else {
                    throw ValidationError("--scope: \"\(part)\" is not a scope like projects:read.")
                }
                list.append(scope)
            }
        }
        guard let set = ScopeSet(list) else {
            throw ValidationError("--scope: a key holds at most \(ScopeSet.countMax) scopes.")
        }
        return set
    }

    /// The second that a duration from now leads to; nil is never.
    static func expiry(_ text: String) throws -> Int64? {
        guard let duration = KeyText.duration(text) else {
            throw ValidationError("--expires is a duration like 90d or 24h, or never.")
        }
        return duration.map { WallClock.nowSeconds() + $0 }
    }

    static func overlap(_ text: String) throws -> Int64 {
        if ["now", "0", "0s"].contains(text) { return 0 }
        guard let duration = KeyText.duration(text), let seconds = duration else {
            throw ValidationError("--overlap is a duration like 24h or 15m, or now.")
        }
        return seconds
    }
}
