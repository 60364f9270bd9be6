import Foundation
import Glibc
import TestSupport

/// A key that a test's configuration declares.
struct TestKey: Sendable {
    let secret: String
    let id: String
    var account: String
    var tier: String
    var scopes: [String] = []

    /// 100 a minute.
    static let standard = TestKey(
        secret: "sk_live_standard_abc123", id: "key_std", account: "acme", tier: "standard")
    static let pro = TestKey(
        secret: "sk_live_pro_def456", id: "key_pro", account: "globex", tier: "pro", scopes: ["projects:*"])
    /// Enough for tests that are not about limits.
    static let enterprise = TestKey(
        secret: "sk_live_enterprise_ghi789", id: "key_ent", account: "initech", tier: "enterprise",
        scopes: ["*"])
    static let all = [standard, pro, enterprise]
}

/// What a test wants of its gateway; the rest is the same for all.
struct Setup {
    /// Lines of `upstreams.main` besides its endpoints.
    var upstream = ""
    var upstreams: [Upstream] = []
    /// Endpoints that are no `Upstream`.
    var upstreamEndpoints: [String] = []
    /// Whole entries of `upstreams`, indented by two.
    var moreUpstreams = ""
    var routes = ["{ path: /api/**, upstream: main }"]
    var keys = TestKey.all
    var keysExtra = ""
    var tiers = """
        standard:   { limits: [100/minute] }
        pro:        { limits: [1000/minute] }
        enterprise: { limits: [1000000/minute] }
        """
    var store = "url: \"memory:\""
    var https = ""
    var plaintext: String? = ""
    var admin = ""
    var workers = 1
    /// A program and its arguments that start the gateway instead of the test: the command line follows them.
    var launcher: [String] = []
    /// Whole top-level sections.
    var sections = ""
    /// Most tests never wait for the drain's first phase.
    var timeouts = "drain_delay: 0s"

    init(_ upstreams: Upstream...) { self.upstreams = upstreams }

    func with(_ change: (inout Setup) -> Void) -> Setup {
        var copy = self
        change(&copy)
        return copy
    }
}

/// A running gateway: the real program on free ports.
final class Gateway: Sendable {
    let httpsPort: UInt16
    let plaintextPort: UInt16
    let adminPort: UInt16
    let configurationPath: String
    let child: ChildProcess
    private let folder: TemporaryFolder
    /// Played for as long as the gateway runs, also when the test keeps no name for them.
    private let upstreams: [Upstream]

    /// Starts the program and waits until it says that it is ready.
    ///
    /// - Parameter https: a port that somebody else listens on already, for the program.
    init(_ setup: Setup, waits: Bool = true, https: UInt16? = nil) throws {
        upstreams = setup.upstreams
        httpsPort = if let https { https } else { try Ports.free() }
        plaintextPort = try Ports.free()
        adminPort = try Ports.free()
        folder = try TemporaryFolder()
        configurationPath = try folder.write(
            "gateway.conf",
            setup.text(
                https: httpsPort, plaintext: plaintextPort, admin: adminPort, log: folder.path("access.log")))
        let command = setup.launcher + [try Gateway.binary(), "run", "--config", configurationPath]
        child = try ChildProcess(
            command[0], Array(command.dropFirst()),
            output: .file(folder.path("out")), error: .file(folder.path("err")))
        if waits {
            do {
                try waitUntilReady()
            } catch {
                throw HarnessError("\(error). The gateway said: \(log)")
            }
        }
    }

    deinit {
        guard KeySearch.isOn else { return }
        child.end()
        KeySearch.look(at: ["out", "err", "access.log"].map(folder.path))
    }

    /// The program under test: `GATEWAY_BINARY`, or what was built last.
    static func binary() throws -> String {
        if let path = ProcessInfo.processInfo.environment["GATEWAY_BINARY"] { return path }
        let root = URL(filePath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        for build in ["release", "debug"] {
            let path = root.appending(path: ".build/\(build)/gateway").path
            if FileManager.default.isExecutableFile(atPath: path) { return path }
        }
        throw HarnessError("no gateway is built; `make build` builds one")
    }

    /// Whether the program is built with a sanitizer, whose own memory hides what the gateway takes.
    static let isSanitized = ProcessInfo.processInfo.environment["SANITIZER"] != nil

    /// What the program wrote to standard error so far.
    var log: String { (try? folder.read("err")) ?? "" }
    /// Access log lines so far.
    var accessLogPath: String { folder.path("access.log") }
    var accessLog: [Substring] { ((try? folder.read("access.log")) ?? "").split(separator: "\n") }

    func waitUntilReady() throws {
        try Deadline(seconds: 15).wait("readiness") {
            guard child.isRunning else { throw HarnessError("the gateway ended") }
            return (try? admin("/readyz").status) == 200
        }
    }

    /// What `openssl s_client` prints of one call on a connection of its own, its tickets read by then: those
    /// of TLS 1.3 come behind the handshake.
    func callOnce(_ options: [String]) throws -> String {
        let request = Gateway.request(fields: "Connection: close\r\n").replacing("\r\n", with: "\\r\\n")
        let command =
            "printf '\(request)' | openssl s_client -ign_eof -connect 127.0.0.1:\(httpsPort) "
            + "-servername localhost \(options.joined(separator: " ")) 2>&1; true"
        return try ChildProcess.run("bash", ["-c", command]).output
    }

    /// A call to the admin listener.
    func admin(_ path: String, token: String? = nil) throws -> Response {
        let authorization = token.map { "Authorization: Bearer \($0)\r\n" } ?? ""
        return try PlainClient.exchange(
            port: adminPort,
            "GET \(path) HTTP/1.1\r\nHost: localhost\r\n\(authorization)Connection: close\r\n\r\n")
    }

    /// The value of one metric sample, named as it stands in the text format, labels included.
    func metric(_ sample: String) throws -> Double? {
        for line in try admin("/metrics").text.split(separator: "\n") where line.hasPrefix(sample + " ") {
            return Double(line.dropFirst(sample.count + 1))
        }
        return nil
    }

    /// Sum over all samples of a metric whose labels hold `part`.
    func metricSum(_ name: String, holding part: String = "") throws -> Double {
        try admin("/metrics").text.split(separator: "\n")
            .filter { ($0.hasPrefix(name + "{") || $0.hasPrefix(name + " ")) && $0.contains(part) }
            .compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }
            .reduce(0, +)
    }

    /// A connection for exact bytes.
    func connect(_ options: String..., serverName: String = "localhost") throws -> TLSClient {
        try TLSClient(port: httpsPort, serverName: serverName, options: options)
    }

    /// One call on a connection of its own.
    func call(
        _ target: String = "/api/x", key: TestKey? = .enterprise, method: String = "GET", fields: String = "",
        body: String = ""
    ) throws -> Response {
        let client = try connect()
        try client.send(Gateway.request(target, key: key, method: method, fields: fields, body: body))
        return try client.response(to: method)
    }

    /// The text of a request.
    ///
    /// - Parameter fields: whole lines, each with its CRLF.
    static func request(
        _ target: String = "/api/x", key: TestKey? = .enterprise, method: String = "GET", fields: String = "",
        body: String = ""
    ) -> String {
        let authorization = key.map { "Authorization: Bearer \($0.secret)\r\n" } ?? ""
        let length = body.isEmpty ? "" : "Content-Length: \(body.utf8.count)\r\n"
        return
            "\(method) \(target) HTTP/1.1\r\nHost: localhost\r\n\(authorization)\(fields)\(length)\r\n\(body)"
    }

    func rewriteConfiguration(_ change: (String) -> String) throws {
        try folder.write("gateway.conf", change(try folder.read("gateway.conf")))
    }
}

extension Setup {
    /// The configuration file.
    func text(https: UInt16, plaintext: UInt16, admin: UInt16, log: String) throws -> String {
        let certificate = try Certificate.shared.get()
        func indented(_ text: String, by count: Int) -> String {
            text.split(separator: "\n").map { String(repeating: " ", count: count) + $0 + "\n" }.joined()
        }
        var text = "listen:\n  https:\n    address: \"127.0.0.1:\(https)\"\n"
        if !self.https.contains("certificates:") {
            text += "    certificates:\n"
            text +=
                "      - { chain: \"\(certificate.chainPath)\", private_key: \"\(certificate.keyPath)\" }\n"
        }
        text += indented(self.https, by: 4)
        if let extra = self.plaintext {
            text += "  plaintext:\n    address: \"127.0.0.1:\(plaintext)\"\n" + indented(extra, by: 4)
        }
        text += "admin:\n  address: \"127.0.0.1:\(admin)\"\n" + indented(self.admin, by: 2)
        text += "store:\n" + indented(store, by: 2)
        text += "keys:\n  prefixes: [sk_live_]\n" + indented(keysExtra, by: 2)
        if !keys.isEmpty { text += "  static:\n" }
        for key in keys {
            let scopes = key.scopes.map { "\"\($0)\"" }.joined(separator: ", ")
            text +=
                "    - { sha256: \"\(sha256Hexadecimal(key.secret))\", id: \(key.id), "
            text += "account: \(key.account), "
            text += "tier: \(key.tier), scopes: [\(scopes)] }\n"
        }
        text += "tiers:\n" + indented(tiers, by: 2)
        let endpoints = (upstreams.map(\.endpoint) + upstreamEndpoints).map { "\"\($0)\"" }
            .joined(separator: ", ")
        text += "upstreams:\n  main:\n    endpoints: [\(endpoints)]\n" + indented(upstream, by: 4)
        text += moreUpstreams
        text += "routes:\n" + routes.map { "  - \($0)\n" }.joined()
        text += "timeouts: { \(timeouts) }\n"
        text += "access_log: { path: \"\(log)\", format: json }\n"
        text += "workers: \(workers)\n" + sections
        return text
    }
}
