import Admin
import Configuration
import DataPlane
import Reactor
import TLS

/// Reads the configuration again: upon a signal, a request, or a change of the files that TLS is made of.
/// Touched by the control thread alone.
final class Reloader {
    typealias Source = () throws(ConfigurationProblems) -> GatewayConfiguration

    /// Between two looks at the files; a change that two looks agree on is whole.
    private static let watchMicroseconds: Int64 = 1_000_000
    private static let expiryMicroseconds: Int64 = 3_600_000_000
    /// Days before the end of a certificate at which the log says so.
    private static let expiryDays: [Int64] = [30, 7, 1]

    private let server: GatewayServer
    private let source: Source?
    /// Called with every configuration that takes effect, with what it keeps of the one before.
    var whenAccepted: (GatewayConfiguration) -> Void = { _ in }
    private(set) var facts: ReloadFacts
    private(set) var certificates: [(subject: String, notAfter: Int64)] = []
    /// The files as they were when last read, and as they were at the last look.
    private var read: [String: String]
    private var seen: [String: String]
    private var looksAt: Int64 = 0
    private var warnsAt: Int64 = 0
    /// The lowest of `expiryDays` that has been logged for each certificate.
    private var warned: [String: Int64] = [:]

    /// - Parameter files: what `look` returned before the server read any of them.
    init(_ server: GatewayServer, _ source: Source?, files: [String: String]) {
        self.server = server
        self.source = source
        facts = ReloadFacts(acceptedSeconds: WallClock.nowSeconds())
        read = files
        seen = read
        certificates = Self.inspect(server.accepted)
    }

    /// Reads, checks and hands over the configuration; what runs is untouched by one that is not good.
    @discardableResult
    func reload(because why: String) -> ReloadOutcome {
        guard let source else {
            return ReloadOutcome(isAccepted: false, problems: ["there is no configuration file to read"])
        }
        let before = Self.look(at: server.accepted)
        read = before
        seen = read
        do {
            let configuration = try source()
            // Before they are read: what changes meanwhile is seen at the next look.
            let files = Self.look(at: configuration)
            let problems = LiveCheck.certificates(configuration)
            guard problems.isEmpty else { return refuse(why, problems) }
            let warnings = try server.reload(configuration)
            facts.accepted += 1
            facts.lastSucceeded = true
            facts.acceptedSeconds = WallClock.nowSeconds()
            // Of a file that only a new process takes, the one of before is in use.
            read = Self.look(at: server.accepted)
            for path in read.keys { read[path] = files[path] ?? before[path] ?? read[path] }
            seen = read
            certificates = Self.inspect(configuration)
            warnsAt = 0
            whenAccepted(server.accepted)
            server.shared.report(.info, "\(why): the configuration is good", every: 0)
            for warning in warnings { server.shared.report(.warning, warning, every: 0) }
            return ReloadOutcome(isAccepted: true, warnings: warnings)
        } catch let error as ConfigurationProblems {
            return refuse(why, error.lines)
        } catch let error as ServerProblem {
            return refuse(why, [error.text])
        } catch {
            return refuse(why, ["\(error)"])
        }
    }

    private func refuse(_ why: String, _ problems: [String]) -> ReloadOutcome {
        facts.refused += 1
        facts.lastSucceeded = false
        for problem in problems { server.shared.report(.error, "\(why): \(problem)", every: 0) }
        server.shared.report(.error, "\(why): nothing has changed", every: 0)
        return ReloadOutcome(isAccepted: false, problems: problems)
    }

    /// Looks at the files and at the certificates' ends, when it is time.
    func tick(nowMicroseconds now: Int64) {
        if source != nil, now >= looksAt {
            looksAt = now + Self.watchMicroseconds
            let present = Self.look(at: server.accepted)
            let isWhole = present == seen
            seen = present
            if isWhole, present != read { reload(because: "changed certificate files") }
        }
        if now >= warnsAt {
            warnsAt = now + Self.expiryMicroseconds
            warnOfExpiry(WallClock.nowSeconds())
        }
    }

    private func warnOfExpiry(_ now: Int64) {
        for (subject, notAfter) in certificates {
            let left = notAfter - now
            guard let limit = Self.expiryDays.last(where: { left <= $0 * 86_400 }) else { continue }
            let name = "\(subject) \(notAfter)"
            if let before = warned[name], before <= limit { continue }
            warned[name] = limit
            let end =
                left <= 0 ? "has expired" : "ends in \(left / 86_400) days and \(left % 86_400 / 3_600) hours"
            server.shared.report(
                limit <= 1 ? .error : .warning, "the certificate of \(subject) \(end)", every: 0)
        }
        let names = Set(certificates.map { "\($0.subject) \($0.notAfter)" })
        warned = warned.filter { names.contains($0.key) }
    }

    /// The present state of the files whose change is a reason to reload, by path.
    static func look(at configuration: GatewayConfiguration) -> [String: String] {
        var found: [String: String] = [:]
        for path in paths(of: configuration) { found[path] = FileReader.identity(path: path) }
        return found
    }

    private static func paths(of configuration: GatewayConfiguration) -> [String] {
        configuration.listen.certificates.flatMap { [$0.chainPath, $0.privateKeyPath] }
            + configuration.upstreams.compactMap(\.caPath)
            + [configuration.listen.clientCAPath, configuration.store.caPath].compactMap(\.self)
    }

    private static func inspect(
        _ configuration: GatewayConfiguration
    ) -> [(subject: String, notAfter: Int64)] {
        configuration.listen.certificates.compactMap { files in
            let facts = try? CertificateFacts.inspect(
                chainPath: files.chainPath, privateKeyPath: files.privateKeyPath)
            return facts.map { ($0.subject, $0.notAfter) }
        }
    }
}
