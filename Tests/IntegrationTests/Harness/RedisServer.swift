import Foundation
import Glibc

/// A Redis of the test's own, without persistence, on a free port.
final class RedisServer: Sendable {
    let port: UInt16
    var url: String { "redis://127.0.0.1:\(port)/0" }
    private let folder: TemporaryFolder
    private let child: ChildProcess

    init(port: UInt16? = nil) throws {
        self.port = try port ?? Ports.free()
        folder = try TemporaryFolder()
        child = try ChildProcess(
            "redis-server",
            [
                "--port", String(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                "--dir", folder.root, "--daemonize", "no",
            ], output: .file(folder.path("log")), error: .file(folder.path("log")))
        try Deadline(seconds: 10).wait("Redis") { (try? self.command("PING")) == "PONG" }
    }

    /// One command by way of `redis-cli`, as another program would send it.
    @discardableResult
    func command(_ arguments: String...) throws -> String {
        let outcome = try ChildProcess.run("redis-cli", ["-p", String(port)] + arguments, within: 10)
        guard outcome.status == 0 else { throw HarnessError("redis-cli: \(outcome.error)\(outcome.output)") }
        return outcome.output.trimmingCharacters(in: .newlines)
    }

    /// Writes a key's record with the fields given, as another program would.
    func store(_ key: String, _ fields: [String: String]) throws {
        let digest = sha256Hexadecimal(key)
        let pairs = fields.sorted { $0.key < $1.key }.flatMap { [$0.key, $0.value] }
        let outcome = try ChildProcess.run(
            "redis-cli", ["-p", String(port), "HSET", "gateway:key:\(digest)"] + pairs)
        guard outcome.status == 0 else { throw HarnessError(outcome.error) }
    }

    /// Ends at once, like a crash.
    func kill() { child.end() }

    /// Keeps its connections and answers nothing.
    func freeze() { child.signal(SIGSTOP) }
    func thaw() { child.signal(SIGCONT) }

    deinit { thaw() }
}
