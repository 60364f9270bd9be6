package import Configuration
import HTTPWire
import Reactor
import Synchronization
import TLS

/// One question to one endpoint, for the command line.
package enum HealthProbe {
    /// - Returns: nil when the endpoint answers well, else what is wrong.
    package static func ask(_ endpoint: EndpointConfiguration, _ health: HealthConfiguration) -> String? {
        HealthCheck.probe(endpoint, health, caPath: nil)
    }
}

/// Asks the endpoints of one upstream how they are, on a thread of its own.
final class HealthCheck: Sendable {
    /// Whom a check is about; a reload that changes nothing of it leaves the check alone.
    struct Subject: Sendable, Equatable {
        var name: String
        var endpoints: [EndpointConfiguration]
        /// The endpoints' numbers.
        var numbers: [Int]
        var caPath: String?
        var usesHTTP2: Bool
        var health: HealthConfiguration
    }

    let subject: Subject
    private let stop: Wakeup
    private let over = Atomic<Bool>(false)
    private let ending = Atomic<Bool>(false)
    private let thread = Mutex<ThreadHandle?>(nil)

    /// Starts checking.
    ///
    /// Both closures are called on the check's thread, with a place in `subject.endpoints`.
    ///
    /// - Parameters:
    ///   - isHealthy: how an endpoint stands: a former check may have left it out.
    ///   - report: an endpoint is to stand otherwise.
    init(
        _ subject: Subject, isHealthy: @escaping @Sendable (_ place: Int) -> Bool,
        report: @escaping @Sendable (_ place: Int, _ isHealthy: Bool, _ why: String) -> Void
    ) throws(SystemError) {
        self.subject = subject
        stop = try Wakeup()
        let started = try Thread.start(name: "health") { [self] in
            run(isHealthy, report)
            over.store(true, ordering: .releasing)
        }
        thread.withLock { $0 = started }
    }

    var isEnding: Bool { ending.load(ordering: .relaxed) }
    var hasEnded: Bool { over.load(ordering: .acquiring) }

    /// Has the thread end, after the answer that it waits for.
    func end() {
        ending.store(true, ordering: .relaxed)
        stop.signal()
    }

    func join() { thread.withLock { $0 }?.join() }

    /// An answer counts toward the threshold that would change its endpoint's state.
    private func run(
        _ isHealthy: (_ place: Int) -> Bool,
        _ report: (_ place: Int, _ isHealthy: Bool, _ why: String) -> Void
    ) {
        var streaks = subject.endpoints.map { _ in 0 }
        let health = subject.health
        repeat {
            for place in subject.endpoints.indices where !isEnding {
                let problem = Self.probe(
                    subject.endpoints[place], health, caPath: subject.caPath, usesHTTP2: subject.usesHTTP2)
                let isGood = problem == nil
                streaks[place] = isGood == isHealthy(place) ? 0 : streaks[place] + 1
                let threshold = isGood ? health.healthyThreshold : health.unhealthyThreshold
                guard streaks[place] >= threshold, !isEnding else { continue }
                streaks[place] = 0
                report(place, isGood, problem ?? "answers again")
            }
        } while !Readiness.pause(milliseconds: health.intervalMilliseconds, unless: stop)
    }

    /// - Parameter usesHTTP2: whether calls go to it in HTTP/2, in clear too.
    /// - Returns: nil when the endpoint answers with a 2xx or 3xx status, else what is wrong.
    static func probe(
        _ endpoint: EndpointConfiguration, _ health: HealthConfiguration, caPath: String?,
        usesHTTP2: Bool = false
    ) -> String? {
        let timeout = health.timeoutMilliseconds
        do {
            let connection: BlockingConnection
            var hostName = "localhost"
            var isSecure = false
            switch endpoint.transport {
            case .unixSocket(let path):
                connection = try BlockingConnection(toUnixPath: path, timeoutMilliseconds: timeout)
            case .tcp(let host, let port, let tls):
                isSecure = tls
                hostName = host.contains(":") ? "[\(host)]" : host
                let addresses = NameResolver.resolve(host: host, port: UInt16(port))
                guard !addresses.isEmpty else { return "the name \(host) cannot be resolved" }
                connection = try connect(addresses.prefix(HardLimits.addresses), within: timeout) {
                    (address, timeout) throws(ConnectionProblem) in
                    try BlockingConnection(
                        to: address, serverName: tls ? host : nil, caPath: caPath,
                        protocols: usesHTTP2 ? ["h2", "http/1.1"] : [], timeoutMilliseconds: timeout)
                }
            }
            let speaksHTTP2 = usesHTTP2 && (!isSecure || connection.speaksHTTP2)
            var request = Block.constant(
                "GET \(health.path) HTTP/1.1\r\nHost: \(hostName)\r\nUser-Agent: gateway-health\r\n"
                    + (speaksHTTP2 ? "\r\n" : "Connection: close\r\n\r\n"))
            defer { request.deallocate() }
            if speaksHTTP2 {
                return try HTTP2Probe.ask(connection, request, isSecure: isSecure, timeout)
            }
            try connection.send(request, timeoutMilliseconds: timeout)
            return try readStatus(connection, timeout)
        } catch {
            return error.text
        }
    }

    /// The first connection that can be made: calls go on from one address to the next, too. Each address has
    /// its share of the time that is left.
    private static func connect(
        _ addresses: some Collection<SocketAddress>, within timeout: Int,
        _ make: (SocketAddress, _ timeout: Int) throws(ConnectionProblem) -> BlockingConnection
    ) throws(ConnectionProblem) -> BlockingConnection {
        let deadline = MonotonicClock.nowMicroseconds() + Int64(timeout) * 1_000
        var problem = ConnectionProblem("it has no address")
        for (index, address) in addresses.enumerated() {
            let left = Int((deadline - MonotonicClock.nowMicroseconds()) / 1_000)
            do {
                return try make(address, max(1, left / (addresses.count - index)))
            } catch {
                problem = error
            }
        }
        throw problem
    }

    /// What an answer's status says against an endpoint.
    static func problem(status: Int) -> String? {
        (200..<400).contains(status) ? nil : "it answers \(status)"
    }

    private static func readStatus(
        _ connection: BlockingConnection, _ timeout: Int
    ) throws(ConnectionProblem) -> String? {
        var block = Block.allocate(capacity: 65_536)
        defer { block.deallocate() }
        var head = ResponseHead()
        let limits = HeadLimits(headBytes: 65_536, fields: 256, targetBytes: 0)
        // One time for all of it: an endpoint that drips keeps nobody else's check waiting.
        let deadline = MonotonicClock.nowMicroseconds() + Int64(timeout) * 1_000
        while true {
            let remaining = (deadline - MonotonicClock.nowMicroseconds()) / 1_000
            guard remaining > 0 else { return "it does not answer in time" }
            guard try connection.receive(into: &block, timeoutMilliseconds: Int(remaining)) else { break }
            let bytes = block
            switch ResponseParser.parse(bytes.readable, method: .get, limits: limits, into: &head) {
            case .incomplete: continue
            case .refused: return "it does not answer in HTTP"
            case .complete:
                return problem(status: head.status)
            }
        }
        return "it closed the connection without an answer"
    }
}
