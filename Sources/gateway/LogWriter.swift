import Admin
import Configuration
import DataPlane
import KeyManagement
import Keys
import Logging
import Reactor
import Synchronization

/// The thread that writes: access lines and the program's own log. A slow disk or a full pipe holds up nobody
/// else.
final class LogWriter: @unchecked Sendable {
    // `@unchecked`: after `start` only its own thread touches what is neither atomic nor locked.
    /// How long a pipe may take to have room, while serving and at the end.
    private static let patienceMilliseconds = 1_000
    private static let lastPatienceMilliseconds = 100

    private let shared: SharedState
    private var settings: Settings
    private var output: LogOutput?
    private let console = LogOutput(Descriptor(rawValue: 2))
    private let wanted = Mutex<Change?>(nil)
    private let stopping = Atomic<Bool>(false)
    private var thread: ThreadHandle?

    /// What a configuration says of logs.
    private struct Settings: Sendable {
        var access: AccessLogConfiguration
        var isJSON: Bool
        var level: Logger.Level
        /// For what callers have written and a line repeats.
        var mask: KeyMask?

        init(_ configuration: GatewayConfiguration) {
            access = configuration.accessLog
            isJSON = configuration.log.isJSON
            level = Logger.Level(rawValue: configuration.log.level) ?? .info
            mask = KeyFormat(prefixes: configuration.keys.prefixes).map(KeyMask.init)
        }

        func masked(_ bytes: [UInt8]) -> [UInt8] { mask?.mask(bytes) ?? bytes }
    }

    /// What the thread is to do before it writes on.
    private enum Change: Sendable {
        case reopen
        case adopt(Settings)
    }

    init(_ configuration: GatewayConfiguration, _ shared: SharedState) throws(ServerProblem) {
        self.shared = shared
        settings = Settings(configuration)
        output = try Self.open(settings.access.target)
    }

    private static func open(_ target: LogTarget) throws(ServerProblem) -> LogOutput? {
        do {
            switch target {
            case .off: return nil
            case .standardOutput: return LogOutput(Descriptor(rawValue: 1))
            case .standardError: return LogOutput(Descriptor(rawValue: 2))
            case .syslog(let path): return try LogOutput(syslog: path)
            case .file(let path):
                do {
                    return try LogOutput(appendingTo: path)
                } catch {
                    throw ServerProblem("the access log \(path) cannot be opened: \(error.reason)")
                }
            }
        } catch let problem as ServerProblem {
            throw problem
        } catch {
            throw ServerProblem("the access log cannot be opened: \(error)")
        }
    }

    func start() throws(ServerProblem) {
        do {
            thread = try Thread.start(name: "log") { [self] in run() }
        } catch {
            throw ServerProblem("the system refuses a thread: \(error.reason)")
        }
    }

    /// Opens the log's file again, after it was renamed.
    func reopen() { change(.reopen) }

    /// Goes over to what another configuration says.
    func adopt(_ configuration: GatewayConfiguration) { change(.adopt(Settings(configuration))) }

    private func change(_ fresh: Change) {
        wanted.withLock { waiting in
            // Going over opens the file too.
            if case .adopt = waiting, case .reopen = fresh { return }
            waiting = fresh
        }
        shared.reports.wakeup.signal()
    }

    /// Writes what is left and ends the thread.
    func stop() {
        stopping.store(true, ordering: .releasing)
        shared.reports.wakeup.signal()
        thread?.join()
        thread = nil
    }

    private func run() {
        var isLast = false
        while true {
            let change = wanted.withLock { waiting in
                defer { waiting = nil }
                return waiting
            }
            switch change {
            case .reopen: apply(settings)
            case .adopt(let fresh): apply(fresh)
            case nil: break
            }
            for report in shared.reports.takeAll() { write(report) }
            writeAccessLines()
            if isLast { return }
            isLast = stopping.load(ordering: .acquiring)
            if !isLast {
                Readiness.wait(shared.reports.wakeup.descriptor, shared.accessLog.wakeup.descriptor)
            }
        }
    }

    private var patience: Int {
        stopping.load(ordering: .relaxed) ? Self.lastPatienceMilliseconds : Self.patienceMilliseconds
    }

    /// A log that cannot be opened leaves the present one in use.
    private func apply(_ fresh: Settings) {
        do {
            output = try Self.open(fresh.access.target)
            settings = fresh
        } catch {
            let target = settings.access.target
            settings = fresh
            settings.access.target = target
            shared.report(.error, error.text, every: 0)
        }
    }

    private func writeAccessLines() {
        let formatter = AccessLogFormatter(shared.names, settings.access.format)
        for block in shared.accessLog.takeAll() {
            guard let output else { continue }
            let (lost, reason) = output.write(
                settings.masked(formatter.lines(block)), patienceMilliseconds: patience)
            guard lost > 0 else { continue }
            shared.countLostLines(lost)
            shared.report(.error, "the access log loses lines: \(reason)", every: 60)
        }
    }

    private func write(_ report: Report) {
        let level: Logger.Level =
            switch report.level {
            case .info: .info
            case .warning: .warning
            case .error: .error
            }
        guard level >= settings.level else { return }
        let line = StandardErrorLog.line(level, report.text, isJSON: settings.isJSON)
        _ = console.write(settings.masked(Array((line + "\n").utf8)), patienceMilliseconds: patience)
    }
}

/// One line a message, as text or JSON.
enum StandardErrorLog {
    static func line(_ level: Logger.Level, _ text: String, isJSON: Bool) -> String {
        var time = Block.allocate(capacity: 64)
        defer { time.deallocate() }
        var writer = ByteWriter(time)
        CalendarTime(unixSeconds: WallClock.nowSeconds()).writeISO8601(into: &writer)
        time.commit(writer)
        let stamp = String(copying: time.readable) + "Z"
        return isJSON
            ? "{\"time\":\"\(stamp)\",\"level\":\"\(level)\",\"message\":\"\(JSONText.escape(text))\"}"
            : "\(stamp) \(level): \(text)"
    }
}
