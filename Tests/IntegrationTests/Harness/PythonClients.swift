import Foundation

/// The clients and servers from PyPI that `make test` installs, and the programs in `Tests/Clients` that use
/// them.
enum Clients {
    private static let root = URL(filePath: #filePath).resolvingSymlinksInPath()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// Their Python.
    static let python = root.appending(path: ".build/clients/bin/python").path

    static let areInstalled = FileManager.default.isExecutableFile(atPath: python)

    private static func command(_ program: String) -> String {
        root.appending(path: "Tests/Clients").appending(path: program).path
    }

    /// Starts a program that answers each line with a line.
    static func start(_ program: String, _ arguments: [String]) throws -> LineProcess {
        try LineProcess([python, command(program)] + arguments)
    }

    /// Runs a program to its end.
    static func run(
        _ program: String, _ arguments: [String], within seconds: Double = 60
    ) throws -> ChildProcess.Outcome {
        try ChildProcess.run(python, [command(program)] + arguments, within: seconds)
    }
}

/// Callers of HTTP/2 that keep calls under way on every connection and retry none, played by
/// `Tests/Clients/drain.py`.
struct StreamCallers {
    struct Outcome: Decodable {
        var calls: Int
        /// Connections that have come to their end.
        var rounds: Int
        /// What became of each call that was not answered 200.
        var failed: [String]
    }

    private let process: LineProcess

    /// Returns once all are busy.
    ///
    /// - Parameter thenGoOn: whether a caller that was told to go away connects anew.
    init(_ gateway: Gateway, connections: Int, underWay: Int, thenGoOn: Bool) throws {
        process = try Clients.start(
            "drain.py",
            [
                "\(gateway.httpsPort)", try Certificate.shared.get().chainPath, TestKey.enterprise.secret,
                "\(connections)", "\(underWay)", thenGoOn ? "again" : "end",
            ])
        guard try process.line() == "busy" else { throw HarnessError("the callers do not begin") }
    }

    /// What became of all calls, once every caller was told to go away.
    func outcome() throws -> Outcome { try Self.read(process.line()) }

    /// The same for callers that go on until now.
    func stop() throws -> Outcome { try Self.read(process.ask("stop")) }

    private static func read(_ line: String) throws -> Outcome {
        try JSONDecoder().decode(Outcome.self, from: Data(line.utf8))
    }
}

/// A program that is asked line by line.
final class LineProcess {
    private let child: ChildProcess
    private let folder: TemporaryFolder
    private var reader: MessageReader

    init(_ command: [String]) throws {
        folder = try TemporaryFolder()
        child = try ChildProcess(
            command[0], Array(command.dropFirst()), input: .pipe, output: .pipe,
            error: .file(folder.path("err")))
        reader = MessageReader(ByteStream(input: child.outputDescriptor, output: child.inputDescriptor))
        reader.timeoutSeconds = 60
    }

    /// The next line that it says.
    func line() throws -> String {
        guard let line = try reader.take(through: "\n") else {
            throw HarnessError("the program ended: \((try? folder.read("err")) ?? "")")
        }
        return String(decoding: line.dropLast(), as: UTF8.self)
    }

    func ask(_ text: String) throws -> String {
        try reader.stream.write(Array("\(text)\n".utf8))
        return try line()
    }
}
