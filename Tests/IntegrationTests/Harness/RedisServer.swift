import Foundation
import Glibc
import TestSupport

/// A Redis of the test's own, without persistence, on a free port.
final class RedisServer: Sendable {
    /// The server of all tests: another version of Redis, or another program that speaks its protocol, when
    /// `REDIS_SERVER` names one.
    static let program = ProcessInfo.processInfo.environment["REDIS_SERVER"] ?? "redis-server"

    /// Whether it was built with TLS; Debian's was.
    static let speaksTLS: Bool = {
        guard program != "redis-server" else { return true }
        let outcome = try? ChildProcess.run(program, ["--port", "0", "--tls-port", "1"], within: 10)
        return outcome?.output.contains("Failed to configure TLS") ?? false
    }()

    /// How it listens.
    enum Transport { case plain, tls, unixSocket }

    let port: UInt16
    var url: String {
        switch transport {
        case .plain: "redis://\(userInfo)127.0.0.1:\(port)/0"
        case .tls: "rediss://\(userInfo)localhost:\(port)/0"
        case .unixSocket: "redis+unix://\(userInfo)\(folder.path("socket"))"
        }
    }
    private let transport: Transport
    private let userInfo: String
    private let folder: TemporaryFolder
    private let child: ChildProcess
    private let clientOptions: [String]

    /// - Parameters:
    ///   - predecessor: one that was killed, whose port, and data as of its last `save`, this one takes over.
    ///   - clock: in place of the machine's.
    init(
        _ transport: Transport = .plain, port: UInt16? = nil, user: String = "", password: String? = nil,
        after predecessor: RedisServer? = nil, clock: SettableClock? = nil, options extra: [String] = []
    ) throws {
        self.port = try predecessor?.port ?? port ?? Ports.free()
        self.transport = transport
        userInfo = password.map { "\(user):\($0)@" } ?? ""
        folder = try predecessor?.folder ?? TemporaryFolder()
        var options = [
            "--bind", "127.0.0.1", "--save", "", "--rdbcompression", "no", "--appendonly", "no", "--dir",
            folder.root, "--daemonize",
            "no",
        ]
        var client = ["-p", String(self.port)]
        switch transport {
        case .plain: options += ["--port", String(self.port)]
        case .tls:
            let certificate = try Certificate.shared.get()
            options += ["--port", "0", "--tls-port", String(self.port), "--tls-auth-clients", "no"]
            options += ["--tls-cert-file", certificate.chainPath, "--tls-key-file", certificate.keyPath]
            options += ["--tls-ca-cert-file", certificate.chainPath]
            client += ["--tls", "--cacert", certificate.chainPath]
        case .unixSocket:
            options += ["--port", "0", "--unixsocket", folder.path("socket")]
            client = ["-s", folder.path("socket")]
        }
        if let password, user.isEmpty {
            options += ["--requirepass", password]
            client += ["--no-auth-warning", "-a", password]
        } else if let password {
            // The default user may do nothing, and this one only what the gateway needs.
            options += ["--user", "default", "off", "--user", user, "on", ">\(password)"] + Self.permissions
            client += ["--no-auth-warning", "--user", user, "-a", password]
        }
        options += extra
        clientOptions = client
        child = try ChildProcess(
            Self.program, options, environment: clock?.environment ?? [:],
            output: .file(folder.path("log")),
            error: .file(folder.path("log")))
        try Deadline(seconds: 10).wait("Redis") { (try? self.command("PING")) == "PONG" }
    }

    /// What `gateway.conf.example` says that a user of Redis has to be allowed.
    private static let permissions = [
        "~gateway:*", "resetchannels", "&__redis__:invalidate", "&gateway:recall", "+@read", "+@write",
        "+@connection", "+@transaction", "+@scripting", "+@pubsub", "+client|tracking", "+time", "+info",
        "+role", "+asking", "+config|get", "+cluster|nodes", "+cluster|info",
    ]

    /// One command by way of `redis-cli`, as another program would send it.
    @discardableResult
    func command(_ arguments: String...) throws -> String { try command(arguments) }

    /// The same with options of `redis-cli` before it.
    @discardableResult
    func command(_ arguments: [String]) throws -> String {
        let outcome = try ChildProcess.run("redis-cli", clientOptions + arguments, within: 10)
        guard outcome.status == 0 else { throw HarnessError("redis-cli: \(outcome.error)\(outcome.output)") }
        return outcome.output.trimmingCharacters(in: .newlines)
    }

    /// How often a command has been carried out.
    func calls(of name: String) throws -> Int {
        let line = try command("INFO", "commandstats").split(whereSeparator: \.isNewline)
            .first { $0.hasPrefix("cmdstat_\(name):") }
        return line.flatMap { $0.split { "=,".contains($0) }.dropFirst().first }.flatMap { Int($0) } ?? 0
    }

    /// Writes a key's record with the fields given, as another program would.
    func store(_ key: String, _ fields: [String: String]) throws {
        let digest = sha256Hexadecimal(key)
        let pairs = fields.sorted { $0.key < $1.key }.flatMap { [$0.key, $0.value] }
        let outcome = try ChildProcess.run(
            "redis-cli", clientOptions + ["HSET", "gateway:key:\(digest)"] + pairs)
        guard outcome.status == 0 else { throw HarnessError(outcome.error) }
    }

    /// Where `SAVE` writes.
    var dumpPath: String { folder.path("dump.rdb") }

    /// Ends at once, like a crash.
    func kill() { child.end() }

    /// Keeps its connections and answers nothing.
    func freeze() { child.signal(SIGSTOP) }
    func thaw() { child.signal(SIGCONT) }

    deinit {
        thaw()
        guard KeySearch.isOn else { return }
        // A dump may be there already, from a test that saves.
        _ = try? command("SAVE")
        KeySearch.look(at: [dumpPath, folder.path("log")])
    }
}
