import ArgumentParser
import Configuration
import DataPlane
import Reactor
import TLS

struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check a configuration without running it.",
        discussion: "All problems are shown together, and the exit status is 78 when there is one.")

    @OptionGroup var options: ConfigurationOption

    @Flag(help: "Also read the certificates, resolve and ask the upstreams, and dial the store.")
    var live = false

    func run() throws {
        let configuration = try options.load()
        var problems = LiveCheck.certificates(configuration)
        if live { problems += LiveCheck.reachability(configuration) }
        try options.refuse(problems)
        if live {
            for warning in StoreCheck.warnings(configuration) {
                Console.error("\(options.config): warning: \(warning)")
            }
        }
        Console.out(
            "\(options.config) is good: \(configuration.routes.count) routes, "
                + "\(configuration.upstreams.count) upstreams, \(configuration.tiers.count) tiers")
    }
}

/// What can only be known by trying.
enum LiveCheck {
    /// Certificates and keys that do not fit, are over or have not begun, and hosts that none covers.
    static func certificates(_ configuration: GatewayConfiguration) -> [String] {
        var problems: [String] = []
        var usable: [CertificateFacts] = []
        for files in configuration.listen.certificates {
            do {
                let facts = try CertificateFacts.inspect(
                    chainPath: files.chainPath, privateKeyPath: files.privateKeyPath)
                if facts.notAfter <= WallClock.nowSeconds() {
                    problems.append("\(files.chainPath): the certificate of \(facts.subject) has expired")
                } else if facts.notBefore > WallClock.nowSeconds() {
                    problems.append(
                        "\(files.chainPath): the certificate of \(facts.subject) is not valid yet")
                }
                usable.append(facts)
            } catch {
                problems.append(error.message)
            }
        }
        // Where one cannot be read, what it would have covered is no second problem.
        guard usable.count == configuration.listen.certificates.count else { return problems }
        for host in configuration.listen.hosts where !usable.contains(where: { $0.covers(host) }) {
            problems.append("no certificate covers \(host), which listen.https.hosts names")
        }
        return problems
    }

    /// Names that do not resolve, endpoints and a store that do not answer.
    static func reachability(_ configuration: GatewayConfiguration) -> [String] {
        var problems: [String] = []
        for upstream in configuration.upstreams {
            for endpoint in upstream.endpoints {
                if let problem = reach(endpoint, upstream) {
                    problems.append("upstream \(upstream.name) \(endpoint.text): \(problem)")
                }
            }
        }
        if let problem = StoreCheck.problem(configuration) { problems.append("store: \(problem)") }
        return problems
    }

    private static func reach(_ endpoint: EndpointConfiguration, _ upstream: UpstreamConfiguration) -> String?
    {
        let timeout = upstream.connectTimeoutMilliseconds
        do {
            switch endpoint.transport {
            case .unixSocket(let path):
                _ = try BlockingConnection(toUnixPath: path, timeoutMilliseconds: timeout)
            case .tcp(let host, let port, let tls):
                guard let address = NameResolver.resolve(host: host, port: UInt16(port)).first else {
                    return "the name \(host) cannot be resolved"
                }
                _ = try BlockingConnection(
                    to: address, serverName: tls ? host : nil, caPath: upstream.caPath,
                    timeoutMilliseconds: timeout)
            }
            return nil
        } catch {
            return error.text
        }
    }
}
