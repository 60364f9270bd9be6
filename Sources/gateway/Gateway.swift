import ArgumentParser
import Configuration
import DataPlane
import Reactor

/// The program: commands, and nothing else; each has its own file.
@main
struct Gateway: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gateway",
        abstract: "An authenticating, rate-limiting, TLS-terminating reverse proxy.",
        discussion: """
            Put it in front of services that exist already. It refuses plain HTTP, asks for an API key, \
            enforces each account's limits exactly, and forwards what is authorised.

            `gateway demo` shows all of it without any set-up.
            """,
        version: Version.text,
        subcommands: [
            Demo.self, Run.self, Check.self, KeysCommand.self, LimitsCommand.self, Explain.self,
            ConfigCommand.self, Health.self, DemoUpstreamCommand.self,
        ])
}

extension Gateway {
    /// Runs what the command line asks for.
    static func main() {
        FileReader.reserveStandardStreams()
        // Who asks for the runtime's reports knows what is in them.
        ProcessLimits.forbidDumps(keepsReports: Environment.all()["SWIFT_BACKTRACE"] != nil)
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch {
            let status = exitCode(for: error)
            let text = fullMessage(for: error)
            if !text.isEmpty {
                if status.isSuccess { Console.out(text) } else { Console.error(text) }
            }
            ProcessLimits.exit(status.rawValue)
        }
    }
}

enum Version {
    static let text = "gateway 0.1.0"
    static let number = "0.1.0"
}

/// Exit statuses of `sysexits.h`, and 1 for "refused".
enum Status {
    static let refused: Int32 = 1
    static let usage: Int32 = 64
    static let unavailable: Int32 = 69
    static let configuration: Int32 = 78
}

/// Ends the program with one sentence on standard error.
func fail(_ status: Int32, _ text: String) -> ExitCode {
    Console.error("gateway: \(text)")
    return ExitCode(status)
}

/// Where the configuration is.
struct ConfigurationOption: ParsableArguments {
    @Option(name: .shortAndLong, help: "The configuration file.")
    var config = "gateway.conf"

    /// - Throws: `ExitCode` 78, with every problem on standard error.
    func load() throws -> GatewayConfiguration {
        do {
            return try read()
        } catch {
            for line in error.lines { Console.error(line) }
            throw ExitCode(Status.configuration)
        }
    }

    /// Ends the program when something is wrong with what the configuration names.
    ///
    /// - Throws: `ExitCode` 78.
    func refuse(_ problems: [String]) throws {
        for problem in problems { Console.error("\(config): \(problem)") }
        if !problems.isEmpty { throw ExitCode(Status.configuration) }
    }

    func read() throws(ConfigurationProblems) -> GatewayConfiguration {
        try ConfigurationLoader.load(
            path: config, environment: Environment.all(), processors: ProcessLimits.processorCount())
    }
}
