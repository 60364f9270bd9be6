import Foundation
import Limits

/// A Redis of the test's own, on a socket in a folder of its own, with the script loaded.
final class ScriptServer: Sendable {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// Whether this machine has a Redis at all.
    static let isAvailable = (try? outcome("/usr/bin/env", ["redis-server", "--version"], input: nil)) != nil

    private let folder: URL
    private let process: Process
    /// The shell that minds Redis ends it when this closes, be it because the tests crashed.
    private let leash = Pipe()
    private let scriptName: String

    init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("limits-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let output = Pipe()
        process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        let minder = "redis-server \"$@\" 2>&1 & child=$!; exec >&-; read -r _; kill -KILL $child"
        process.arguments = [
            "-c", minder, "sh", "--port", "0", "--unixsocket", folder.appendingPathComponent("s").path,
            "--dir", folder.path, "--save", "", "--appendonly", "no",
        ]
        process.standardInput = leash
        process.standardOutput = output
        try process.run()
        var log = ""
        while !log.contains("eady to accept connections") {
            let more = output.fileHandleForReading.availableData
            guard !more.isEmpty else { throw Failure(description: "no Redis: \(log)") }
            log += String(decoding: more, as: UTF8.self)
        }
        scriptName = try Self.outcome(
            "/usr/bin/env", ["redis-cli", "-s", folder.path + "/s", "SCRIPT", "LOAD", TakeScript.source],
            input: nil
        ).trimmingCharacters(in: .newlines)
    }

    deinit {
        try? leash.fileHandleForWriting.close()
        process.waitUntilExit()
        try? FileManager.default.removeItem(at: folder)
    }

    /// Sends commands over one connection, one by one.
    ///
    /// - Returns: for each command its reply, elements separated by commas.
    func run(_ commands: [String]) throws -> [String] {
        let input = folder.appendingPathComponent(UUID().uuidString)
        try (commands.joined(separator: "\n") + "\n").write(to: input, atomically: true, encoding: .utf8)
        let output = try Self.outcome(
            "/usr/bin/env", ["redis-cli", "-s", folder.path + "/s", "--csv"], input: input)
        let replies = output.split(separator: "\n").map(String.init)
        guard replies.count == commands.count else {
            throw Failure(description: "\(replies.count) replies to \(commands.count) commands")
        }
        return replies
    }

    /// Sends calls of the script over one connection, one by one.
    func take(_ calls: [ScriptCall]) throws -> [ScriptReply] {
        let replies = try run(calls.map { "EVALSHA \(scriptName) \($0.arguments)" })
        return try zip(calls, replies).map { call, reply in
            guard let parsed = ScriptReply(reply, to: call) else { throw Failure(description: reply) }
            return parsed
        }
    }

    private static func outcome(_ path: String, _ arguments: [String], input: URL?) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = arguments
        process.standardInput = try input.map(FileHandle.init(forReadingFrom:)) ?? FileHandle.nullDevice
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.run()
        let data = try output.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw Failure(description: arguments.joined(separator: " "))
        }
        return String(decoding: data, as: UTF8.self)
    }
}

/// One call of the script.
struct ScriptCall {
    /// Requests of one account that wait together.
    struct Item {
        var account: String
        var plan: LimitPlan
        var requests: Int64 = 1
        var cost: Int64 = 1
    }

    /// Bounds on the instant, microseconds; the same twice makes time stand there.
    var bounds: (low: Int64, high: Int64)
    var items: [Item]

    init(at now: Int64, _ items: Item...) {
        bounds = (now, now)
        self.items = items
    }

    /// A call on Redis's own clock.
    init(_ items: Item...) {
        bounds = (0, 0)
        self.items = items
    }

    static func key(_ account: String, _ window: Window) -> String {
        "limit:{\(account)}:\(window.lengthMicroseconds)"
    }

    var arguments: String {
        var keys: [String] = []
        var words = ["\(bounds.low)", "\(bounds.high)"]
        for item in items {
            words += ["\(item.plan.count)", "\(item.requests)", "\(item.cost)"]
            for index in 0..<item.plan.count {
                let window = item.plan.windows[index]
                keys.append(Self.key(item.account, window))
                words += ["\(window.limit)", "\(window.lengthMicroseconds)"]
            }
        }
        return (["\(keys.count)"] + keys + words).joined(separator: " ")
    }
}

/// What the script answered.
struct ScriptReply {
    struct Item: Equatable {
        var granted: Int64
        var retry: Int64
        var remaining: [Int64] = []
        var resets: [Int64] = []
    }

    let now: Int64
    var items: [Item] = []

    /// Nil when the shape is not the one promised for the call.
    init?(_ text: String, to call: ScriptCall) {
        let numbers = text.split(separator: ",").map { Int64($0) }
        guard !numbers.contains(nil),
            numbers.count == 1 + call.items.reduce(0, { $0 + 2 + 2 * $1.plan.count })
        else { return nil }
        var rest = numbers.compactMap(\.self)[...]
        now = rest.removeFirst()
        for item in call.items {
            var read = Item(granted: rest.removeFirst(), retry: rest.removeFirst())
            for _ in 0..<item.plan.count {
                read.remaining.append(rest.removeFirst())
                read.resets.append(rest.removeFirst())
            }
            items.append(read)
        }
    }
}
