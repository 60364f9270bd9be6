package import Configuration
import HTTPWire
import Reactor
import TLS

/// One question to one endpoint, for the command line.
package enum HealthProbe {
    /// - Returns: nil when the endpoint answers well, else what is wrong.
    package static func ask(_ endpoint: EndpointConfiguration, _ health: HealthConfiguration) -> String? {
        HealthChecker.probe(endpoint, health, caPath: nil)
    }
}

/// Asks the endpoints of one upstream how they are, on a thread of its own.
final class HealthChecker {
    private let configuration: UpstreamConfiguration
    private let health: HealthConfiguration
    private let firstEndpoint: Int
    private let report: (_ endpoint: Int, _ isHealthy: Bool, _ why: String) -> Void
    private var streaks: [Int]
    private var isHealthy: [Bool]

    init(
        _ configuration: UpstreamConfiguration, _ health: HealthConfiguration, firstEndpoint: Int,
        report: @escaping (_ endpoint: Int, _ isHealthy: Bool, _ why: String) -> Void
    ) {
        self.configuration = configuration
        self.health = health
        self.firstEndpoint = firstEndpoint
        self.report = report
        streaks = configuration.endpoints.map { _ in 0 }
        isHealthy = configuration.endpoints.map { _ in true }
    }

    /// Checks until `stop` is signalled.
    func run(until stop: Wakeup) {
        repeat {
            for index in configuration.endpoints.indices { check(index) }
        } while !Readiness.pause(milliseconds: health.intervalMilliseconds, unless: stop)
    }

    /// One check counts toward the threshold that would change the endpoint's state.
    private func check(_ index: Int) {
        let problem = Self.probe(configuration.endpoints[index], health, caPath: configuration.caPath)
        let isGood = problem == nil
        guard isGood != isHealthy[index] else {
            streaks[index] = 0
            return
        }
        streaks[index] += 1
        guard streaks[index] >= (isGood ? health.healthyThreshold : health.unhealthyThreshold) else { return }
        streaks[index] = 0
        isHealthy[index] = isGood
        report(firstEndpoint + index, isGood, problem ?? "answers again")
    }

    /// - Returns: nil when the endpoint answers with a 2xx or 3xx status, else what is wrong.
    static func probe(
        _ endpoint: EndpointConfiguration, _ health: HealthConfiguration, caPath: String?
    ) -> String? {
        let timeout = health.timeoutMilliseconds
        do {
            let connection: BlockingConnection
            let hostName: String
            switch endpoint.transport {
            case .unixSocket(let path):
                connection = try BlockingConnection(toUnixPath: path, timeoutMilliseconds: timeout)
                hostName = "localhost"
            case .tcp(let host, let port, let tls):
                guard let address = NameResolver.resolve(host: host, port: UInt16(port)).first else {
                    return "the name \(host) cannot be resolved"
                }
                connection = try BlockingConnection(
                    to: address, serverName: tls ? host : nil, caPath: caPath, timeoutMilliseconds: timeout)
                hostName = host.contains(":") ? "[\(host)]" : host
            }
            var request = Block.constant(
                "GET \(health.path) HTTP/1.1\r\nHost: \(hostName)\r\nUser-Agent: gateway-health\r\n"
                    + "Connection: close\r\n\r\n")
            defer { request.deallocate() }
            try connection.send(request, timeoutMilliseconds: timeout)
            return try readStatus(connection, timeout)
        } catch {
            return error.text
        }
    }

    private static func readStatus(
        _ connection: BlockingConnection, _ timeout: Int
    ) throws(ConnectionProblem) -> String? {
        var block = Block.allocate(capacity: 65_536)
        defer { block.deallocate() }
        var head = ResponseHead()
        let limits = HeadLimits(headBytes: 65_536, fields: 256, targetBytes: 0)
        while try connection.receive(into: &block, timeoutMilliseconds: timeout) {
            let bytes = block
            switch ResponseParser.parse(bytes.readable, method: .get, limits: limits, into: &head) {
            case .incomplete: continue
            case .refused: return "it does not answer in HTTP"
            case .complete:
                return (200..<400).contains(head.status) ? nil : "it answers \(head.status)"
            }
        }
        return "it closed the connection without an answer"
    }
}
