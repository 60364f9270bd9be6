import Foundation
import Glibc
import TestSupport
import Testing

/// Nobody reads a key out of the gateway's memory: no core is written, and other processes are kept out.
@Suite("What is in memory stays there", .serialized)
struct MemoryTests {
    /// Where the kernel puts cores: next to the program, unless a program of the machine takes them.
    private static let writesCores: Bool = {
        let pattern = (try? String(contentsOfFile: "/proc/sys/kernel/core_pattern", encoding: .utf8)) ?? "|"
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(4), &limit) == 0 else { return false }
        return !pattern.hasPrefix("|") && !pattern.hasPrefix("/") && limit.rlim_max > 0
    }()

    private static func cores(in folder: TemporaryFolder) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder.root).filter { $0.hasPrefix("core") }
    }

    @Test(
        "a gateway that crashes leaves no core", .enabled(if: writesCores),
        arguments: [SIGABRT, SIGSEGV, SIGQUIT])
    func core(_ signal: Int32) throws {
        let folder = try TemporaryFolder()
        let launcher = [
            "sh", "-c", "unset SWIFT_BACKTRACE; ulimit -c unlimited; cd \"$0\"; exec \"$@\"", folder.root,
        ]
        // Another program does leave one here.
        let other = try ChildProcess(
            launcher[0], Array(launcher.dropFirst()) + ["sh", "-c", "kill -\(signal) $$"])
        _ = try other.wait()
        try #require(try !Self.cores(in: folder).isEmpty, "this machine writes no cores at all")
        for name in try Self.cores(in: folder) {
            try FileManager.default.removeItem(atPath: folder.path(name))
        }
        let gateway = try Gateway(Setup(try Upstream()).with { $0.launcher = launcher })
        #expect(try gateway.call(key: .pro).status == 200)
        gateway.child.signal(signal)
        #expect(try gateway.child.wait() == .killed(signal: signal))
        #expect(try Self.cores(in: folder) == [])
        // Nor does what a runtime may say of a crash hold what stood in memory.
        #expect(!gateway.log.contains(TestKey.pro.secret.dropFirst(8)))
    }

    @Test("another process of the same user may not read the gateway's memory")
    func reading() throws {
        let folder = try TemporaryFolder()
        // As root everything may be read: then both are nobody.
        let user =
            geteuid() == 0 ? ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] : []
        try FileManager.default.copyItem(atPath: try Gateway.binary(), toPath: folder.path("gateway"))
        let port = try Ports.free()
        let command = user + [folder.path("gateway"), "demo", "--port", "\(port)"]
        let gateway = try ChildProcess(
            "/usr/bin/env", command, environment: ["TMPDIR": "/tmp"], output: .file(folder.path("demo")),
            error: .file(folder.path("demo")))
        let other = try ChildProcess("/usr/bin/env", user + ["sleep", "60"])
        try Deadline(seconds: 40).wait("the demo") { try folder.read("demo").contains("curl") }
        for file in ["environ", "maps", "mem"] {
            func read(_ process: ChildProcess) throws -> ChildProcess.Outcome {
                let path = "/proc/\(process.processID)/\(file)"
                return try ChildProcess.run("/usr/bin/env", user + ["head", "-c", "1", path])
            }
            let outcome = try read(gateway)
            #expect(outcome.status == 1 && outcome.error.contains("Permission denied"), "\(file)")
            if file != "mem" { #expect(try read(other).status == 0, "\(file)") }
        }
        // The gateway itself still knows what it uses.
        let metrics = try PlainClient.exchange(
            port: port + 1, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        let open = metrics.text.split(separator: "\n").first { $0.hasPrefix("process_open_fds ") }
        #expect(open.flatMap { Double($0.split(separator: " ")[1]) } ?? 0 > 5)
    }
}
