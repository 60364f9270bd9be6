import Foundation

/// Names that end in `.test` and stand for 127.0.0.1 in a program that the test starts: to look them up takes
/// as long as the test likes.
struct SlowNames {
    /// Built once for all tests.
    private static let library = Result {
        let source = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "slow-names.c")
        let folder = try TemporaryFolder()
        let outcome = try ChildProcess.run(
            "clang", ["-O1", "-shared", "-fPIC", "-o", folder.path("names.so"), source.path])
        guard outcome.status == 0 else { throw HarnessError("clang: \(outcome.error)") }
        return folder
    }

    private let folder: TemporaryFolder
    /// Starts the program with these names.
    let launcher: [String]

    init() throws {
        folder = try TemporaryFolder()
        let library = try Self.library.get()
        try Data(count: 4).write(to: URL(filePath: folder.path("state")))
        launcher = ["env", "LD_PRELOAD=\(library.path("names.so"))", "SLOW_NAMES=\(folder.path("state"))"]
    }

    private func write(_ bytes: [UInt8]) throws {
        let file = try FileHandle(forWritingTo: URL(filePath: folder.path("state")))
        try file.write(contentsOf: bytes)
        try file.close()
    }

    private func byte(_ index: Int) -> UInt8 {
        FileManager.default.contents(atPath: folder.path("state"))?[index] ?? 0
    }

    /// Has whoever looks a name up wait from now on.
    func holdBack() throws { try write([1, 0, 0]) }

    /// Whether somebody has begun to look a name up since, and waits.
    var isAsked: Bool { byte(2) == 1 }

    /// Answers whoever waits and whoever comes, each after a pause.
    func answer(pauseMilliseconds: UInt8 = 0) throws { try write([0, pauseMilliseconds]) }

    /// How many were answered, modulo 256.
    var count: UInt8 { byte(3) }
}
