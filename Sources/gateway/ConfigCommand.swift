import ArgumentParser
import Configuration
import Foundation
import KeyManagement
import Reactor
import TLS

struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Look at configurations.",
        subcommands: [Diff.self, Reference.self])

    struct Diff: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Say what a reload would change.",
            discussion: """
                Compares what the running gateway has in force, as its admin listener tells, with the file. \
                With two files, compares these instead.
                """)

        @OptionGroup var file: ConfigurationOption
        @Option(help: "How to print.") var output = KeysCommand.Output.table
        @Flag(help: "Exit with 1 when there are differences.") var exitCode = false
        @Argument(help: "Two files to compare: the old one and the new one.") var files: [String] = []

        func validate() throws {
            guard files.isEmpty || files.count == 2 else {
                throw ValidationError("Name two files, or none to ask the running gateway.")
            }
        }

        func run() throws {
            let old: [(name: String, value: String)]
            let new: [(name: String, value: String)]
            if files.count == 2 {
                old = try Self.load(files[0]).listing
                new = try Self.load(files[1]).listing
            } else {
                let configuration = try file.load()
                new = configuration.listing
                old = try RunningConfiguration.ask(configuration)
            }
            let changes = ConfigurationChange.all(from: old, to: new)
            if output == .json {
                Console.out("[" + changes.map(\.json).joined(separator: ",\n ") + "]")
            } else if changes.isEmpty {
                Console.out("nothing would change")
            } else {
                Console.out(changes.map(\.text).joined(separator: "\n"))
            }
            if exitCode, !changes.isEmpty { throw ExitCode(Status.refused) }
        }

        private static func load(_ path: String) throws -> GatewayConfiguration {
            var option = ConfigurationOption()
            option.config = path
            return try option.load()
        }
    }
}

extension ConfigCommand {
    struct Reference: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print what every key of the configuration file does, in Markdown.")

        func run() { Console.out(ConfigurationReference.markdown) }
    }
}

/// One setting that differs.
private struct ConfigurationChange {
    var name: String
    var old: String?
    var new: String?

    static func all(
        from old: [(name: String, value: String)], to new: [(name: String, value: String)]
    ) -> [ConfigurationChange] {
        let oldValues = Dictionary(old.map { ($0.name, $0.value) }) { first, _ in first }
        let newNames = Set(new.map(\.name))
        var changes = new.compactMap { entry -> ConfigurationChange? in
            let before = oldValues[entry.name]
            guard before != entry.value else { return nil }
            return ConfigurationChange(name: entry.name, old: before, new: entry.value)
        }
        changes += old.filter { !newNames.contains($0.name) }.map {
            ConfigurationChange(name: $0.name, old: $0.value, new: nil)
        }
        return changes.sorted { $0.name < $1.name }
    }

    var text: String {
        switch (old, new) {
        case (let old?, let new?): "~ \(name): \(old) -> \(new)"
        case (nil, let new?): "+ \(name): \(new)"
        case (let old?, nil): "- \(name): \(old)"
        case (nil, nil): name
        }
    }

    var json: String {
        func value(_ text: String?) -> String { text.map(KeyJSON.string) ?? "null" }
        return "{\"name\":\(KeyJSON.string(name)),\"old\":\(value(old)),\"new\":\(value(new))}"
    }
}

/// What a running gateway has in force.
private enum RunningConfiguration {
    /// The whole answer: a thousand routes have about a megabyte.
    private static let answerBytesMax = 16 << 20
    private static let timeoutMilliseconds = 5_000

    static func ask(_ configuration: GatewayConfiguration) throws -> [(name: String, value: String)] {
        guard let admin = configuration.admin, var address = SocketAddress.parse(admin.address) else {
            throw fail(
                Status.refused, "no admin listener is configured to ask; name two files to compare")
        }
        guard let file = admin.tokenFile,
            let token = try? String(contentsOfFile: file, encoding: .utf8)
                .trimmingCharacters(in: .whitespacesAndNewlines)
        else {
            throw fail(
                Status.refused, "without a readable admin.token_file the running gateway tells nothing")
        }
        // What listens everywhere is reached here.
        if address.high == 0, address.low == 0 || address.low == 0xFFFF_0000_0000 {
            address = SocketAddress(ipv4: 0x7F00_0001, port: address.port)
        }
        let answer: [UInt8]
        do {
            answer = try exchange(address, token: token)
        } catch {
            throw fail(
                Status.unavailable, "no gateway answers at \(admin.address): \(error.text)")
        }
        let parts = String(decoding: answer, as: UTF8.self).split(separator: "\r\n\r\n", maxSplits: 1)
        guard parts.count == 2, parts[0].hasPrefix("HTTP/1.1 200") else {
            let status = parts.first?.split(separator: "\r\n").first ?? "nothing"
            throw fail(Status.refused, "the gateway at \(admin.address) answers \(status)")
        }
        guard let json = try? JSONSerialization.jsonObject(with: Data(parts[1].utf8)),
            let settings = (json as? [String: Any])?["settings"] as? [String: String]
        else { throw fail(Status.unavailable, "the gateway's answer cannot be read") }
        return settings.map { ($0.key, $0.value) }
    }

    private static func exchange(
        _ address: SocketAddress, token: String
    ) throws(ConnectionProblem) -> [UInt8] {
        let connection = try BlockingConnection(
            to: address, serverName: nil, caPath: nil, timeoutMilliseconds: timeoutMilliseconds)
        let request =
            "GET /v1/config HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \(token)\r\n"
            + "Connection: close\r\n\r\n"
        var block = Block.constant(request)
        defer { block.deallocate() }
        try connection.send(block, timeoutMilliseconds: timeoutMilliseconds)
        var received = Block.allocate(capacity: 65_536)
        defer { received.deallocate() }
        var answer: [UInt8] = []
        while answer.count < answerBytesMax {
            received.clear()
            guard try connection.receive(into: &received, timeoutMilliseconds: timeoutMilliseconds) else {
                return answer
            }
            let bytes = received.readable
            for index in 0..<bytes.count { answer.append(bytes[index]) }
        }
        throw ConnectionProblem("the answer does not end")
    }
}
