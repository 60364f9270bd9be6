import Admin
import ArgumentParser
import Configuration
import DataPlane
import Foundation
import Keys
import Reactor
import TLS

struct Demo: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run a gateway that needs nothing else, and print calls to paste.",
        discussion: """
            A self-signed certificate, keys and limits in memory, an upstream inside the process, one key \
            per tier. Nothing is written outside a temporary directory, which goes with the process.
            """)

    @Option(help: "The port for HTTPS; the admin listener takes the next one.")
    var port: UInt16 = 8_443

    func validate() throws {
        guard port < 65_535 else { throw ValidationError("--port is at most 65534.") }
    }

    func run() throws {
        // Nobody else can have made a folder of this name, and one that is there already is not taken.
        let name = RandomSource.bytes(8).map { String(UInt16($0) | 0x100, radix: 16).dropFirst() }.joined()
        let directory = FileManager.default.temporaryDirectory.appending(
            path: "gateway-demo-\(name)", directoryHint: .isDirectory)
        do {
            // Before the upstream's thread, which would take them as they come.
            let signals = try Service.takeSignals()
            try FileManager.default.createDirectory(
                at: FileManager.default.temporaryDirectory, withIntermediateDirectories: true)
            try FileManager.default.createDirectory(
                at: directory, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
            defer { try? FileManager.default.removeItem(at: directory) }
            let certificate = try writeCertificate(in: directory)
            let upstream = try DemoUpstream.start()
            let keys = try DemoKey.makeAll()
            let token = try writeToken(in: directory)
            let configuration = try configuration(certificate, token.path, upstream, keys)
            try Service(configuration, signals: signals).run { service in
                Console.out(DemoText.make(service, keys, token: token.text))
            }
        } catch let problem as ServerProblem {
            throw fail(Status.unavailable, problem.text)
        } catch let problem as TLSError {
            throw fail(Status.unavailable, problem.message)
        }
    }

    private func writeCertificate(in directory: URL) throws -> (chain: String, key: String) {
        let pair = try SelfSigned.make(names: ["localhost", "127.0.0.1", "::1"], days: 90)
        let chain = directory.appending(path: "certificate.pem")
        let key = directory.appending(path: "key.pem")
        try pair.chainPEM.write(to: chain, atomically: false, encoding: .utf8)
        guard
            FileManager.default.createFile(
                atPath: key.path, contents: Data(pair.privateKeyPEM.utf8),
                attributes: [.posixPermissions: 0o600])
        else { throw ServerProblem("the temporary directory cannot be written") }
        return (chain.path, key.path)
    }

    /// The token of the dashboard, which lives as long as the process.
    private func writeToken(in directory: URL) throws -> (path: String, text: String) {
        let text = RandomSource.bytes(16).map { String(UInt16($0) | 0x100, radix: 16).dropFirst() }.joined()
        let file = directory.appending(path: "admin-token")
        guard
            FileManager.default.createFile(
                atPath: file.path, contents: Data(text.utf8), attributes: [.posixPermissions: 0o600])
        else { throw ServerProblem("the temporary directory cannot be written") }
        return (file.path, text)
    }

    /// The demo's configuration, as an operator would write it.
    private func configuration(
        _ certificate: (chain: String, key: String), _ tokenPath: String, _ upstream: SocketAddress,
        _ keys: [DemoKey]
    ) throws -> GatewayConfiguration {
        let entries = keys.map { key in
            "{ sha256: \"\(key.record.digest.hexadecimal)\", account: \(key.record.account), "
                + "tier: \(key.record.tier), scopes: [\"\(key.record.scopes.text)\"] }"
        }
        let text = """
            listen:
              https:
                address: "127.0.0.1:\(port)"
                certificates: [{ chain: "\(certificate.chain)", private_key: "\(certificate.key)" }]
            admin: { address: "127.0.0.1:\(port + 1)", token_file: "\(tokenPath)" }
            store: { url: "memory:" }
            keys:
              static: [\(entries.joined(separator: ", "))]
            tiers:
              standard:   { limits: [100/minute] }
              pro:        { limits: [1000/minute] }
              enterprise: { limits: [10000/minute] }
            upstreams:
              demo: { endpoints: ["http://\(upstream)"] }
            routes:
              - { path: /api/projects, methods: [GET], scopes: ["projects:read"], upstream: demo }
              - { path: /api/projects, methods: [POST], scopes: ["projects:write"], upstream: demo }
              - { path: "/api/**", upstream: demo }
              - { path: /status, access: public, upstream: demo }
            limits: { connections: 1024 }
            timeouts: { drain_delay: 0ms, drain: 2s }
            log: { level: warning }
            workers: 2
            """
        do {
            return try ConfigurationLoader.load(
                text: text, fileName: "demo", environment: [:], files: DiskFiles(), processors: 2)
        } catch {
            throw ServerProblem(error.lines.joined(separator: "; "))
        }
    }
}

/// A key of the demo, with its text: it is shown on the terminal and lives as long as the process.
struct DemoKey {
    var text: String
    var record: KeyRecord

    /// Standard may read projects, Pro may read and write them, Enterprise may do everything.
    static func makeAll() throws -> [DemoKey] {
        guard let format = KeyFormat(prefixes: ["sk_live_"]) else { return [] }
        let digester = try Digester()
        let grants = [("standard", "projects:read"), ("pro", "projects:*"), ("enterprise", "*")]
        return grants.map { tier, scopes in
            let secret = format.generate { (span: inout MutableSpan<UInt8>) in
                let random = RandomSource.bytes(span.count)
                for index in 0..<span.count { span[index] = random[index] }
            }
            var record = KeyRecord(digest: Digest256(digester.sha256(secret.bytes)), tier: tier)
            record.account = "demo-\(tier)"
            record.scopes = ScopeSet(text: scopes) ?? .none
            record.hint = secret.hint
            return DemoKey(text: secret.reveal(), record: record)
        }
    }
}

/// What the demo prints.
enum DemoText {
    static func make(_ service: Service, _ keys: [DemoKey], token: String) -> String {
        let base = "https://localhost:\(service.server.httpsAddress.port)"
        let admin = service.adminAddress.map { "http://\($0)" } ?? ""
        let standard = keys[0].text
        return """
            The gateway serves \(base) with a self-signed certificate (hence curl -k).

            Keys:
              standard    \(keys[0].text)   (100 a minute, may read projects)
              pro         \(keys[1].text)   (1000 a minute, may read and write projects)
              enterprise  \(keys[2].text)   (10000 a minute, may do everything)

            Dashboard: \(admin)/   (sign in with \(token))

            Paste these:
              # 200, with the limits in the headers
              curl -ik \(base)/api/projects -H "Authorization: Bearer \(standard)"
              # 401: no key
              curl -ik \(base)/api/projects
              # 403: this key may not write
              curl -ik -X POST \(base)/api/projects -H "Authorization: Bearer \(standard)" -d '{}'
              # 404: told only to those with a key
              curl -ik \(base)/nowhere -H "Authorization: Bearer \(standard)"
              # 426: plain HTTP is refused
              curl -i \(base.replacingOccurrences(of: "https", with: "http"))/api/projects
              # 429: the 101st call of a minute waits
              for i in $(seq 101); do curl -sk -o /dev/null -w '%{http_code} ' \(base)/api/projects \
            -H "Authorization: Bearer \(standard)"; done; echo
              # what monitoring sees
              curl -s \(admin)/metrics

            The access log follows. Ctrl-C ends the demo.
            """
    }
}

/// The service behind the demo: says what it was asked, so that one sees what the gateway forwards.
enum DemoUpstream {
    /// Starts it, on a free port of the loopback address unless told otherwise.
    static func start(_ listen: String = "127.0.0.1:0") throws -> SocketAddress {
        let poller = try Poller()
        let server = try SmallServer(
            address: listen, poller: poller, firstToken: 1, connectionsMax: 4_096
        ) {
            request in
            let fields = request.fields.map {
                "    \"\(JSONText.escape($0.name))\": \"\(JSONText.escape($0.value))\""
            }
            return SmallAnswer(
                200, "application/json",
                """
                {
                  "service": "demo",
                  "method": "\(JSONText.escape(request.method))",
                  "path": "\(JSONText.escape(request.path))",
                  "headers": {
                \(fields.joined(separator: ",\n"))
                  }
                }

                """)
        }
        let address = server.address
        let loop = DemoLoop(server, poller)
        _ = try Reactor.Thread.start(name: "demo-upstream") { loop.run() }
        return address
    }
}

/// The demo upstream's loop; it ends with the process.
private final class DemoLoop: @unchecked Sendable {
    // `@unchecked`: only its own thread uses it.
    private let server: SmallServer
    private let poller: Poller

    init(_ server: SmallServer, _ poller: Poller) {
        self.server = server
        self.poller = poller
    }

    func run() {
        var events = EventList(capacity: 64)
        while true {
            poller.wait(timeoutMilliseconds: 1_000, into: &events)
            let now = MonotonicClock.nowMicroseconds()
            for index in 0..<events.count { server.handle(events[index], nowMicroseconds: now) }
            server.tick(nowMicroseconds: now)
        }
    }
}
