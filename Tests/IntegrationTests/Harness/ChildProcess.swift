import Foundation
import Glibc
import Synchronization

/// A program that a test starts: the gateway, a Redis, curl, a TLS client.
///
/// Started with `posix_spawn`, so that nothing depends on run loops; no descriptor of the tests but the three
/// standard streams reaches it. Whatever still runs when the tests end is killed.
final class ChildProcess: Sendable {
    /// Where a standard stream goes.
    enum Stream {
        case null
        /// Appended to a file.
        case file(String)
        /// A pipe that the test holds the other end of.
        case pipe
    }

    /// How a program ended.
    enum Ending: Equatable {
        case exited(Int32)
        case killed(signal: Int32)
    }

    let processID: pid_t
    /// The test's end of the program's standard input; -1 unless it is a pipe.
    let inputDescriptor: Int32
    /// The test's end of the program's standard output; -1 unless it is a pipe.
    let outputDescriptor: Int32
    private let ending = Mutex<Ending?>(nil)
    private let isInputOpen: Mutex<Bool>

    private static let running = Mutex<Set<pid_t>>([])
    private static let killsAtExit: Void = {
        // Writing to a program that has ended is an error to report, not the end of all tests.
        _ = Glibc.signal(SIGPIPE, SIG_IGN)
        atexit {
            for processID in ChildProcess.running.withLock({ $0 }) { kill(processID, SIGKILL) }
        }
        return ()
    }()

    /// `posix_spawn_file_actions_addclosefrom_np`, which glibc has but does not show to Swift.
    private typealias CloseFrom =
        @convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32
    private static let closeFrom: CloseFrom? = {
        let symbol = unsafe dlsym(nil, "posix_spawn_file_actions_addclosefrom_np")
        return unsafe unsafeBitCast(symbol, to: CloseFrom?.self)
    }()

    init(
        _ path: String, _ arguments: [String], environment: [String: String] = [:],
        input: Stream = .null, output: Stream = .null, error: Stream = .null
    ) throws {
        _ = Self.killsAtExit
        let (childInput, testInput) = try Self.open(input, forReading: true)
        let (childOutput, testOutput) = try Self.open(output, forReading: false)
        let (childError, _) = try Self.open(error, forReading: false)
        inputDescriptor = testInput
        outputDescriptor = testOutput
        defer { for descriptor in [childInput, childOutput, childError] { close(descriptor) } }
        isInputOpen = Mutex(inputDescriptor >= 0)

        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_adddup2(&actions, childInput, 0)
        unsafe posix_spawn_file_actions_adddup2(&actions, childOutput, 1)
        unsafe posix_spawn_file_actions_adddup2(&actions, childError, 2)
        _ = unsafe Self.closeFrom?(&actions, 3)
        // The test runner's threads may block signals: a child begins with none blocked and none ignored.
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        var all = sigset_t()
        unsafe sigemptyset(&none)
        unsafe sigfillset(&all)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        unsafe posix_spawnattr_setsigdefault(&attributes, &all)
        unsafe posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETSIGMASK) | Int16(POSIX_SPAWN_SETSIGDEF))

        let merged = ProcessInfo.processInfo.environment.merging(environment) { _, new in new }
        var argumentPointers = unsafe ([path] + arguments).map { unsafe strdup($0) } + [nil]
        var environmentPointers = unsafe merged.map { unsafe strdup("\($0)=\($1)") } + [nil]
        defer {
            for index in unsafe argumentPointers.indices { unsafe free(argumentPointers[index]) }
            for index in unsafe environmentPointers.indices { unsafe free(environmentPointers[index]) }
        }
        var started: pid_t = 0
        let code = unsafe posix_spawnp(
            &started, path, &actions, &attributes, &argumentPointers, &environmentPointers)
        guard code == 0 else { throw HarnessError("cannot start \(path): error \(code)") }
        processID = started
        Self.running.withLock { _ = $0.insert(started) }
    }

    deinit {
        end()
        if outputDescriptor >= 0 { close(outputDescriptor) }
    }

    /// Sends a signal, unless the program has ended.
    func signal(_ number: Int32) {
        ending.withLock { if $0 == nil { kill(processID, number) } }
    }

    /// Processor time used so far, in seconds.
    func cpuSeconds() throws -> Double {
        let text = try String(contentsOfFile: "/proc/\(processID)/stat", encoding: .utf8)
        // The name may hold spaces; behind its bracket, times in ticks of 10 ms are the 12th and 13th fields.
        let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else {
            throw HarnessError("no times in \(text)")
        }
        return (user + system) / 100
    }

    /// Closes the program's standard input.
    func closeInput() {
        isInputOpen.withLock { isOpen in
            if isOpen { close(inputDescriptor) }
            isOpen = false
        }
    }

    /// Waits until the program has ended.
    func wait(within seconds: Double = 20) throws -> Ending {
        try Deadline(seconds: seconds).wait("the end of process \(processID)") { self.reap(hanging: false) }
    }

    /// Whether the program still runs.
    var isRunning: Bool { reap(hanging: false) == nil }

    /// Kills the program if it still runs, and waits for its end.
    func end() {
        closeInput()
        signal(SIGKILL)
        _ = reap(hanging: true)
    }

    private func reap(hanging: Bool) -> Ending? {
        ending.withLock { ending in
            if ending != nil { return ending }
            var status: Int32 = 0
            guard unsafe waitpid(processID, &status, hanging ? 0 : WNOHANG) == processID else { return nil }
            let signal = status & 0x7f
            ending = signal == 0 ? .exited((status >> 8) & 0xff) : .killed(signal: signal)
            Self.running.withLock { _ = $0.remove(processID) }
            return ending
        }
    }

    /// The child's descriptor, and the test's (-1 when there is none).
    private static func open(_ stream: Stream, forReading: Bool) throws -> (child: Int32, test: Int32) {
        switch stream {
        case .null:
            return (unsafe Glibc.open("/dev/null", O_RDWR | O_CLOEXEC), -1)
        case .file(let path):
            let flags = forReading ? O_RDONLY : O_WRONLY | O_CREAT | O_APPEND
            let descriptor = unsafe Glibc.open(path, flags | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else { throw HarnessError("cannot open \(path)") }
            return (descriptor, -1)
        case .pipe:
            var ends: [Int32] = [-1, -1]
            guard unsafe Glibc.pipe(&ends) == 0 else { throw HarnessError("no pipe") }
            return forReading ? (ends[0], ends[1]) : (ends[1], ends[0])
        }
    }
}

extension ChildProcess {
    /// What a program that ran to its end left behind.
    struct Outcome {
        let ending: Ending
        let output: String
        let error: String
        var status: Int32? { if case .exited(let status) = ending { status } else { nil } }
    }

    /// Runs a program to its end.
    static func run(
        _ path: String, _ arguments: [String], input: String? = nil, environment: [String: String] = [:],
        within seconds: Double = 30
    ) throws -> Outcome {
        let folder = try TemporaryFolder()
        if let input { try folder.write("in", input) }
        let child = try ChildProcess(
            path, arguments, environment: environment,
            input: input == nil ? .null : .file(folder.path("in")),
            output: .file(folder.path("out")), error: .file(folder.path("err")))
        let ending = try child.wait(within: seconds)
        return Outcome(ending: ending, output: try folder.read("out"), error: try folder.read("err"))
    }
}
