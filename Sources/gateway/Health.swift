import Admin
import ArgumentParser
import Configuration
import DataPlane
import Reactor
import TLS

/// For images without a shell: asks the admin listener of a running gateway whether it is ready.
struct Health: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Ask a running gateway whether it is ready; the exit status says.", shouldDisplay: false)

    @OptionGroup var options: ConfigurationOption

    func run() throws {
        let configuration = try options.load()
        guard let text = configuration.admin?.address, var address = SocketAddress.parse(text) else {
            throw fail(Status.configuration, "no admin address is configured")
        }
        // What listens everywhere is reached here.
        if address.high == 0, address.low == 0 || address.low == 0xFFFF_0000_0000 {
            address = SocketAddress(ipv4: 0x7F00_0001, port: address.port)
        }
        let (host, path) = ("localhost", "/readyz")
        let probe = HealthConfiguration(
            path: path, intervalMilliseconds: 1_000, timeoutMilliseconds: 2_000, healthyThreshold: 1,
            unhealthyThreshold: 1)
        let endpoint = EndpointConfiguration(
            transport: .tcp(host: address.ipText, port: Int(address.port), tls: false), text: host)
        if let problem = HealthProbe.ask(endpoint, probe) {
            throw fail(Status.refused, "not ready: \(problem)")
        }
    }
}

/// The demo's upstream alone, for the compose file.
struct DemoUpstreamCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo-upstream", abstract: "Run the demo's upstream alone.", shouldDisplay: false)

    @Option(help: "Where it listens.")
    var address = "127.0.0.1:3000"

    func run() throws {
        // Before the upstream's thread, which would take them as they come.
        let signals = try Signals.install()
        do {
            let bound = try DemoUpstream.start(address)
            Console.out("the demo upstream listens on \(bound)")
        } catch let problem as ServerProblem {
            throw fail(Status.unavailable, problem.text)
        }
        _ = Readiness.wait(signals, forWriting: false, timeoutMilliseconds: -1)
    }
}
