import Foundation
import Reactor
import Redis
import TLS

/// A Redis of the test's own, in a folder of its own, without persistence.
package final class RedisServer: Sendable {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String

        package init(description: String) { self.description = description }
    }

    /// The server of all tests: another version of Redis, or another program that speaks its protocol, when
    /// `REDIS_SERVER` names one.
    private static let program = ProcessInfo.processInfo.environment["REDIS_SERVER"] ?? "redis-server"

    /// Whether this machine has a Redis at all.
    package static let isAvailable: Bool = {
        guard let process = try? start("/usr/bin/env", [program, "--version"]).process else {
            return false
        }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }()

    package let port: UInt16
    package let tlsPort: UInt16
    private let folder: URL
    private let process: Process
    /// The shell that minds Redis ends it when this closes, be it because the tests crashed.
    private let leash: Pipe

    package var socketPath: String { folder.appendingPathComponent("s").path }
    /// The certificate of the TLS port, and its own authority.
    package var caPath: String { folder.appendingPathComponent("chain.pem").path }

    /// - Parameter extra: arguments of `redis-server`.
    package init(_ extra: [String] = []) throws {
        port = try Ports.free()
        tlsPort = try Ports.free()
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("redis-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let pair = try SelfSigned.make(names: ["localhost", "127.0.0.1"], authority: true)
        let chain = folder.appendingPathComponent("chain.pem")
        let key = folder.appendingPathComponent("key.pem")
        try pair.chainPEM.write(to: chain, atomically: true, encoding: .utf8)
        try pair.privateKeyPEM.write(to: key, atomically: true, encoding: .utf8)
        // No `wait` at the end: threads of the tests may block SIGCHLD, the shell inherits that, and would
        // wait for ever. Its own output is closed, so that a Redis that cannot start ends the log below.
        let minder = "\"$REDIS_SERVER\" \"$@\" 2>&1 & child=$!; exec >/dev/null; read -r _; kill -KILL $child"
        let started = try Self.start(
            "/bin/sh",
            [
                "-c", minder, "sh", "--port", "\(port)", "--bind", "127.0.0.1", "--tls-port", "\(tlsPort)",
                "--tls-cert-file", chain.path, "--tls-key-file", key.path, "--tls-ca-cert-file", chain.path,
                "--tls-auth-clients", "no", "--unixsocket", folder.appendingPathComponent("s").path,
                "--dir", folder.path, "--save", "", "--rdbcompression", "no", "--appendonly", "no",
                "--enable-debug-command", "local",
            ] + extra)
        process = started.process
        leash = started.input
        var log = ""
        while !log.contains("eady to accept connections") {
            let more = started.output.fileHandleForReading.availableData
            guard !more.isEmpty else { throw Failure(description: "no Redis: \(log)") }
            log += String(decoding: more, as: UTF8.self)
        }
    }

    deinit {
        if KeySearch.isOn {
            let options = StoreOptions(
                transport: .unixSocket(path: socketPath),
                credentials: StoreCredentials(user: nil, password: nil), database: 0, caPath: nil)
            _ = try? RedisClient(options, timeoutMilliseconds: 5_000).command(["SAVE"])
            KeySearch.look(at: [folder.appendingPathComponent("dump.rdb").path])
        }
        end()
        try? FileManager.default.removeItem(at: folder)
    }

    /// Ends at once, like a crash.
    package func end() {
        try? leash.fileHandleForWriting.close()
        process.waitUntilExit()
    }

    private static func start(
        _ path: String, _ arguments: [String]
    ) throws -> (process: Process, input: Pipe, output: Pipe) {
        let process = Process()
        let input = Pipe()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: path)
        process.environment = ProcessInfo.processInfo.environment.merging(["REDIS_SERVER": program]) { $1 }
        process.arguments = arguments
        process.standardInput = input
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.run()
        return (process, input, output)
    }
}
