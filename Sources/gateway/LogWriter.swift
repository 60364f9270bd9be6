import Admin
import Configuration
import DataPlane
import Logging
import Reactor
import Synchronization

/// The thread that writes: access lines and the program's own log. A slow disk or a full pipe holds up nobody
/// else.
final class LogWriter: @unchecked Sendable {
    // `@unchecked`: after `start` only its own thread touches what is not atomic.
    private let shared: SharedState
    private let target: Descriptor
    private let logger: Logger
    private let stopping = Atomic<Bool>(false)
    private var thread: ThreadHandle?

    init(_ configuration: GatewayConfiguration, _ shared: SharedState) throws(ServerProblem) {
        self.shared = shared
        switch configuration.accessLog.target {
        case .off: target = .none
        case .standardOutput: target = Descriptor(rawValue: 1)
        case .standardError: target = Descriptor(rawValue: 2)
        case .file(let path):
            do {
                target = try FileReader.openForAppending(path: path)
            } catch {
                throw ServerProblem("the access log \(path) cannot be opened: \(error.reason)")
            }
        }
        let isJSON = configuration.log.isJSON
        let level = Logger.Level(rawValue: configuration.log.level) ?? .info
        logger = Logger(label: "gateway") { _ in StandardErrorLog(isJSON: isJSON, logLevel: level) }
    }

    func start() throws(ServerProblem) {
        do {
            thread = try Thread.start(name: "log") { [self] in run() }
        } catch {
            throw ServerProblem("the system refuses a thread: \(error.reason)")
        }
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
            for report in shared.reports.takeAll() { write(report) }
            let formatter = AccessLogFormatter(shared.names)
            for block in shared.accessLog.takeAll() where target.isOpen {
                FileReader.write(formatter.lines(block), to: target)
            }
            if isLast { return }
            isLast = stopping.load(ordering: .acquiring)
            if !isLast {
                Readiness.wait(shared.reports.wakeup.descriptor, shared.accessLog.wakeup.descriptor)
            }
        }
    }

    private func write(_ report: Report) {
        switch report.level {
        case .info: logger.info("\(report.text)")
        case .warning: logger.warning("\(report.text)")
        case .error: logger.error("\(report.text)")
        }
    }
}

/// One line a message on standard error, as text or JSON.
struct StandardErrorLog: LogHandler {
    var isJSON: Bool
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]

    init(isJSON: Bool, logLevel: Logger.Level) {
        self.isJSON = isJSON
        self.logLevel = logLevel
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var time = Block.allocate(capacity: 64)
        defer { time.deallocate() }
        var writer = ByteWriter(time)
        CalendarTime(unixSeconds: WallClock.nowSeconds()).writeISO8601(into: &writer)
        time.commit(writer)
        let stamp = String(copying: time.readable) + "Z"
        if isJSON {
            let message = JSONText.escape("\(event.message)")
            Console.error(
                "{\"time\":\"\(stamp)\",\"level\":\"\(event.level)\",\"message\":\"\(message)\"}")
        } else {
            Console.error("\(stamp) \(event.level): \(event.message)")
        }
    }
}
