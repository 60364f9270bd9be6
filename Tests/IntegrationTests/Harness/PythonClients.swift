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
