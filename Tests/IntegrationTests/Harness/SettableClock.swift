import Foundation

/// Clocks of a program that the test starts, set by the test while the program runs.
struct SettableClock {
    /// Built once for all tests.
    private static let library = Result {
        let source = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "settable-clock.c")
        let folder = try TemporaryFolder()
        let outcome = try ChildProcess.run(
            "clang", ["-O1", "-shared", "-fPIC", "-o", folder.path("clock.so"), source.path])
        guard outcome.status == 0 else { throw HarnessError("clang: \(outcome.error)") }
        return folder
    }

    private let folder: TemporaryFolder
    /// What the program has to be started with.
    let environment: [String: String]

    /// Starts the program with this clock.
    var launcher: [String] { ["env"] + environment.map { "\($0)=\($1)" } }

    /// - Parameter clocks: the kernel's numbers of those that are set: 0 is the wall clock, 1 the monotonic
    ///   one whose rate NTP corrects, 4 the one that runs as the machine's counter does.
    init(_ clocks: [Int] = [0]) throws {
        folder = try TemporaryFolder()
        let library = try Self.library.get()
        try Data(count: 8).write(to: URL(filePath: folder.path("offset")))
        environment = [
            "LD_PRELOAD": library.path("clock.so"), "CLOCK_OFFSET_FILE": folder.path("offset"),
            "CLOCK_OFFSET_OF": clocks.map(String.init).joined(),
        ]
    }

    /// Sets the clock so much before or after the machine's.
    func set(apart microseconds: Int64) throws {
        let file = try FileHandle(forWritingTo: URL(filePath: folder.path("offset")))
        try file.write(contentsOf: (0..<8).map { UInt8(truncatingIfNeeded: microseconds >> ($0 * 8)) })
        try file.close()
    }
}
