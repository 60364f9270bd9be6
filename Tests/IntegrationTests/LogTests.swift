import Foundation
import Testing

/// Where lines go, and what happens when they cannot.
@Suite("Logs", .serialized)
struct LogTests {
    @Test("a renamed file is opened again upon SIGUSR1, and the combined format is the common one")
    func reopen() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        try gateway.rewriteConfiguration { $0.replacing("format: json", with: "format: combined") }
        try gateway.reload(to: 2)
        _ = try gateway.call(
            "/api/one", key: .pro,
            fields: "User-Agent: curl/8 \"quoted\" \\ \u{FC}\r\nREFERER: https://example.com/?a=b\r\n")
        try Deadline(seconds: 5).wait("the line") { gateway.accessLog.count == 1 }
        let line = gateway.accessLog[0]
        let pattern =
            #/127\.0\.0\.1 - key_pro \[[^\]]{20} \+0000\] "GET /api/one HTTP/1\.1" 200 2 (.*)/#
        let match = try #require(try pattern.wholeMatch(in: line), "\(line)")
        // What could end the quotes or the line, and what is not ASCII, is escaped as nginx does.
        #expect(match.1 == #""https://example.com/?a=b" "curl/8 \x22quoted\x22 \x5C \xC3\xBC""#)
        try FileManager.default.moveItem(atPath: gateway.accessLogPath, toPath: gateway.accessLogPath + ".1")
        gateway.child.signal(SIGUSR1)
        try Deadline(seconds: 5).wait("the new file") {
            FileManager.default.fileExists(atPath: gateway.accessLogPath)
        }
        _ = try gateway.call("/api/two")
        try Deadline(seconds: 5).wait("the line") { gateway.accessLog.count == 1 }
        #expect(gateway.accessLog[0].contains("/api/two"))
        #expect(gateway.accessLog[0].hasSuffix(#" "-" "-""#))
        // A refusal has them too, and nobody's agent fills the log.
        let long = String(repeating: "a", count: 3_000)
        _ = try gateway.call("/api/three", key: nil, fields: "Referer: r\r\nUser-Agent: \(long)\r\n")
        try Deadline(seconds: 5).wait("the line") { gateway.accessLog.count == 2 }
        #expect(gateway.accessLog[1].contains("\"GET /api/three HTTP/1.1\" 401 "))
        #expect(gateway.accessLog[1].hasSuffix(" \"r\" \"\(long.prefix(1_024))\""))
    }

    @Test("a sample of the good calls has lines, and every other call")
    func sample() throws {
        let gateway = try Gateway(Setup(try Upstream()))
        try gateway.rewriteConfiguration { $0.replacing("format: json", with: "format: json, sample: 0%") }
        try gateway.reload(to: 2)
        for _ in 0..<5 { #expect(try gateway.call().status == 200) }
        #expect(try gateway.call(key: nil).status == 401)
        try Deadline(seconds: 5).wait("the refusal's line") { !gateway.accessLog.isEmpty }
        #expect(gateway.accessLog.count == 1)
        #expect(gateway.accessLog[0].contains("\"reason\":\"key_missing\""))
        #expect(try gateway.metric("gateway_refusals_total{reason=\"key_missing\"}") == 1)
    }

    @Test("syslog has a datagram a line")
    func syslog() throws {
        let folder = try TemporaryFolder()
        let server = try ChildProcess(
            "python3",
            [
                "-c",
                """
                import socket, sys
                s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                s.bind(sys.argv[1])
                sys.stdout.write("bound\\n"); sys.stdout.flush()
                while True: sys.stdout.write(s.recv(9000).decode() + "\\n"); sys.stdout.flush()
                """, folder.path("log"),
            ], output: .file(folder.path("out")), error: .file(folder.path("err")))
        try Deadline(seconds: 5).wait("the socket") { try folder.read("out").contains("bound") }
        let gateway = try Gateway(Setup(try Upstream()))
        try gateway.rewriteConfiguration {
            $0.replacing("path: \"\(gateway.accessLogPath)\"", with: "path: \"syslog:\(folder.path("log"))\"")
        }
        try gateway.reload(to: 2)
        _ = try gateway.call("/api/told")
        try Deadline(seconds: 5).wait("the datagram") { try folder.read("out").contains("/api/told") }
        let told = try folder.read("out")
        #expect(told.contains("<134>gateway["))
        // More at once than its socket holds.
        let caller = try gateway.connect()
        let burst = (0..<300).map { Gateway.request("/nowhere/\($0)") }.joined()
        try caller.send(burst)
        for _ in 0..<300 { #expect(try caller.response().status == 404) }
        try Deadline(seconds: 10).wait("the last line") { try folder.read("out").contains("/nowhere/299") }
        #expect(try folder.read("out").split(separator: "\n").count { $0.contains("/nowhere/") } == 300)
        // A daemon that is gone costs lines, not calls.
        server.end()
        _ = try gateway.call()
        try Deadline(seconds: 5).wait("the loss") {
            try gateway.metric("gateway_access_log_dropped_total") == 1
        }
        #expect(gateway.log.contains("the access log loses lines"))
    }

    /// A file system of a few pages, for the gateway alone.
    private static func launcher(on folder: TemporaryFolder) -> [String] {
        [
            "unshare", "-rm", "bash", "-c",
            "mount -t tmpfs -o size=64k none \"\(folder.path("disk"))\" && exec \"$0\" \"$@\"",
        ]
    }

    private static let mountsAreAllowed: Bool = {
        guard let folder = try? TemporaryFolder() else { return false }
        try? FileManager.default.createDirectory(
            atPath: folder.path("disk"), withIntermediateDirectories: true)
        let command = launcher(on: folder) + ["true"]
        return (try? ChildProcess.run(command[0], Array(command.dropFirst())))?.status == 0
    }()

    @Test(
        "a disk that fills up costs the lines that do not fit, and with room again lines are whole",
        .enabled(if: mountsAreAllowed, "mounting a file system is not allowed here"))
    func diskFills() throws {
        let folder = try TemporaryFolder()
        try FileManager.default.createDirectory(
            atPath: folder.path("disk"), withIntermediateDirectories: true)
        let gateway = try Gateway(
            Setup(try Upstream()).with { $0.launcher = Self.launcher(on: folder) })
        try gateway.rewriteConfiguration {
            $0.replacing(gateway.accessLogPath, with: folder.path("disk/access.log"))
        }
        try gateway.reload(to: 2)
        let client = try gateway.connect()
        func call(_ path: String) throws {
            try client.send(Gateway.request(path))
            #expect(try client.response().status == 200)
        }
        // Some 300 bytes a line: three times what there is room for.
        for number in 0..<600 { try call("/api/\(number)") }
        // As others see the gateway's files.
        let process = try #require(try gateway.processes().first)
        let log = "/proc/\(process)/root\(folder.path("disk/access.log"))"
        func lines() throws -> [Substring] {
            try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n")
        }
        func lost() throws -> Int { Int(try gateway.metric("gateway_access_log_dropped_total") ?? 0) }
        // The line that was torn counts as lost, too.
        try Deadline(seconds: 10).wait("the last line") { try lines().count + lost() >= 600 }
        #expect(gateway.log.contains("the access log loses lines: No space left on device"))
        let (kept, before) = (try lines().count, try lost())
        #expect(kept > 100 && kept < 400 && kept + before <= 601)
        // Somebody makes room.
        let file = try #require(FileHandle(forWritingAtPath: log))
        try file.truncate(atOffset: 0)
        try call("/api/room")
        try Deadline(seconds: 5).wait("the line") { try lines().contains { $0.contains("/api/room") } }
        for line in try lines() {
            #expect(throws: Never.self) { try JSONSerialization.jsonObject(with: Data(line.utf8)) }
        }
        #expect(try lost() == before)
    }

    @Test(
        "a full disk and a pipe that nobody reads cost lines, not calls, and the end is clean",
        arguments: [true, false])
    func cannotWrite(_ isFull: Bool) throws {
        let folder = try TemporaryFolder()
        let pipe = folder.path("pipe")
        // Keeps the pipe open without reading it.
        let holder: ChildProcess? =
            isFull
            ? nil
            : try ChildProcess(
                "python3",
                [
                    "-c",
                    """
                    import os, signal, sys
                    os.mkfifo(sys.argv[1] + ".made")
                    os.open(sys.argv[1] + ".made", os.O_RDWR)
                    os.rename(sys.argv[1] + ".made", sys.argv[1])
                    signal.pause()
                    """, pipe,
                ])
        if !isFull {
            try Deadline(seconds: 5).wait("the pipe") { FileManager.default.fileExists(atPath: pipe) }
        }
        let gateway = try Gateway(Setup(try Upstream()))
        let target = isFull ? "/dev/full" : pipe
        try gateway.rewriteConfiguration {
            $0.replacing("path: \"\(gateway.accessLogPath)\"", with: "path: \"\(target)\"")
        }
        try gateway.reload(to: 2)
        let client = try gateway.connect()
        // A pipe holds 64 KiB, and as much waits in the worker.
        let long = "/api/" + String(repeating: "x", count: 4_000)
        for _ in 0..<120 {
            try client.send(Gateway.request(long))
            #expect(try client.response().status == 200)
        }
        try Deadline(seconds: 10).wait("the loss") {
            try gateway.metric("gateway_access_log_dropped_total") ?? 0 > 0
        }
        gateway.child.signal(SIGTERM)
        #expect(try gateway.child.wait(within: 10) == .exited(0))
        holder?.end()
    }
}
