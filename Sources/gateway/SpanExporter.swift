import Configuration
import DataPlane
import HTTPWire
import KeyManagement
import Keys
import Reactor
import Synchronization
import TLS

/// Sends spans to an OpenTelemetry collector, on a thread of its own: in batches, again after a growing pause
/// where that may help, from a bounded queue. Whatever the collector does costs spans and nothing else.
final class SpanExporter: @unchecked Sendable {
    // `@unchecked`: after `start` only its own thread touches what is neither atomic nor locked.
    /// Spans of one request; the collector's own default batch.
    private static let batchSpans = 512
    /// Spans that wait; older ones are given up.
    private static let spansMax = 8_192
    /// How long spans collect before they are sent.
    private static let collectMilliseconds = 500
    private static let connectMilliseconds = 2_000
    /// For the whole answer, however it drips.
    private static let timeoutMilliseconds = 5_000
    private static let lastTimeoutMilliseconds = 500
    /// How often somebody who waits for the collector looks whether the program ends.
    private static let lookMilliseconds = 250
    private static let firstPauseMilliseconds: Int64 = 1_000
    private static let pauseMaxMilliseconds: Int64 = 30_000
    /// The longest pause that a collector may ask for: the queue does not hold more anyhow.
    private static let askedPauseMaxMilliseconds: Int64 = 300_000

    private enum Outcome {
        case taken, refused
        /// After a pause of the collector's choice, where it has named one.
        case again(String, afterMilliseconds: Int64? = nil)
    }

    private let shared: SharedState
    private let settings: Mutex<TraceConfiguration?>
    private let mask: Mutex<KeyMask?>
    private let version: String
    private let stopping: Wakeup
    private let isStopping = Atomic<Bool>(false)
    private var thread: ThreadHandle?
    private var waiting: [String] = []
    private var pause: Int64 = 0
    private var triesAt: Int64 = 0
    private var timeout = SpanExporter.timeoutMilliseconds

    init(_ configuration: GatewayConfiguration, _ shared: SharedState, version: String) throws(ServerProblem)
    {
        self.shared = shared
        self.version = version
        settings = Mutex(configuration.traces)
        mask = Mutex(Self.mask(configuration))
        do {
            stopping = try Wakeup()
        } catch {
            throw ServerProblem("the system refuses an event descriptor: \(error.reason)")
        }
    }

    func start() throws(ServerProblem) {
        do {
            thread = try Thread.start(name: "spans") { [self] in run() }
        } catch {
            throw ServerProblem("the system refuses a thread: \(error.reason)")
        }
    }

    func adopt(_ configuration: GatewayConfiguration) {
        settings.withLock { $0 = configuration.traces }
        mask.withLock { $0 = Self.mask(configuration) }
    }

    private static func mask(_ configuration: GatewayConfiguration) -> KeyMask? {
        KeyFormat(prefixes: configuration.keys.prefixes).map(KeyMask.init)
    }

    /// Ends the thread, after one attempt to send what is left.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        stopping.signal()
        thread?.join()
        thread = nil
    }

    private func run() {
        var isLast = false
        while true {
            collect()
            let now = MonotonicClock.nowMicroseconds() / 1_000
            if !waiting.isEmpty, now >= triesAt || isLast { send() }
            if isLast { return }
            isLast = Readiness.pause(milliseconds: Self.collectMilliseconds, unless: stopping)
            if isLast { timeout = Self.lastTimeoutMilliseconds }
        }
    }

    private func collect() {
        let formatter = SpanFormatter(shared.names)
        for block in shared.spans.takeAll() { waiting += formatter.spans(block) }
        if settings.withLock({ $0 }) == nil { waiting = [] }
        guard waiting.count > Self.spansMax else { return }
        shared.countSpans(lost: waiting.count - Self.spansMax)
        waiting.removeFirst(waiting.count - Self.spansMax)
    }

    private func send() {
        guard let target = settings.withLock({ $0 }) else { return }
        while !waiting.isEmpty {
            let batch = Array(waiting.prefix(Self.batchSpans))
            switch post(batch, to: target) {
            case .taken: shared.countSpans(sent: batch.count)
            case .refused: shared.countSpans(lost: batch.count)
            case .again(let why, let asked):
                pause = min(max(Self.firstPauseMilliseconds, pause * 2), Self.pauseMaxMilliseconds)
                let wait = asked.map {
                    min(max(Self.firstPauseMilliseconds, $0), Self.askedPauseMaxMilliseconds)
                }
                triesAt = MonotonicClock.nowMicroseconds() / 1_000 + (wait ?? pause)
                shared.report(.warning, "traces: \(why)", every: 60)
                return
            }
            waiting.removeFirst(batch.count)
            pause = 0
        }
    }

    private func post(_ spans: [String], to target: TraceConfiguration) -> Outcome {
        var body = Self.document(spans, service: target.service, version: version)
        if let mask = mask.withLock({ $0 }) {
            body = String(decoding: mask.mask(Array(body.utf8)), as: UTF8.self)
        }
        do {
            guard let address = NameResolver.resolve(host: target.host, port: UInt16(target.port)).first
            else {
                return .again("the name \(target.host) cannot be resolved")
            }
            let connection = try BlockingConnection(
                to: address, serverName: target.usesTLS ? target.host : nil, caPath: target.caPath,
                timeoutMilliseconds: min(timeout, Self.connectMilliseconds))
            let host = target.host.contains(":") ? "[\(target.host)]" : target.host
            var request = Block.constant(
                "POST \(target.path) HTTP/1.1\r\nHost: \(host):\(target.port)\r\n"
                    + "Content-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n"
                    + "User-Agent: gateway/\(version)\r\nConnection: close\r\n\r\n\(body)")
            defer { request.deallocate() }
            try connection.send(request, timeoutMilliseconds: timeout)
            return try readOutcome(connection)
        } catch {
            return .again("the collector cannot be reached: \(error.text)")
        }
    }

    /// 2xx is taken; what may pass is tried again (OTLP 1.5, "Failures"); anything else is not worth it.
    private func readOutcome(_ connection: BlockingConnection) throws(ConnectionProblem) -> Outcome {
        let deadline = MonotonicClock.nowMicroseconds() + Int64(timeout) * 1_000
        var block = Block.allocate(capacity: 65_536)
        defer { block.deallocate() }
        var head = ResponseHead()
        let limits = HeadLimits(headBytes: 65_536, fields: 256, targetBytes: 0)
        while try receive(from: connection, into: &block, until: deadline) {
            let bytes = block
            switch ResponseParser.parse(bytes.readable, method: .post, limits: limits, into: &head) {
            case .incomplete: continue
            case .refused: return .again("the collector does not answer in HTTP")
            case .complete:
                if (200..<300).contains(head.status) { return .taken }
                if [429, 502, 503, 504].contains(head.status) {
                    return .again(
                        "the collector answers \(head.status)",
                        afterMilliseconds: Self.retryAfter(head, bytes.readable))
                }
                shared.report(.warning, "traces: the collector answers \(head.status)", every: 60)
                return .refused
            }
        }
        return .again("the collector closed the connection without an answer")
    }

    private static func retryAfter(_ head: borrowing ResponseHead, _ bytes: Span<UInt8>) -> Int64? {
        for index in 0..<head.fieldCount {
            let field = head.field(index)
            guard bytes.extracting(field.name).equalsIgnoringCase("retry-after") else { continue }
            let text = String(copying: bytes.extracting(field.value))
            return RetryAfter.seconds(text, nowSeconds: WallClock.nowSeconds()).map {
                min($0, askedPauseMaxMilliseconds / 1_000) * 1_000
            }
        }
        return nil
    }

    /// In steps: a collector that says nothing does not hold up the end of the program.
    private func receive(
        from connection: BlockingConnection, into block: inout Block, until deadline: Int64
    ) throws(ConnectionProblem) -> Bool {
        while true {
            let left = Int(deadline - MonotonicClock.nowMicroseconds()) / 1_000
            do {
                return try connection.receive(
                    into: &block, timeoutMilliseconds: min(max(1, left), Self.lookMilliseconds))
            } catch {
                let gaveUp = isStopping.load(ordering: .acquiring) && timeout != Self.lastTimeoutMilliseconds
                if !error.isTimeout || left <= 0 || gaveUp { throw error }
            }
        }
    }

    private static func document(_ spans: [String], service: String, version: String) -> String {
        let name = "{\"key\":\"service.name\",\"value\":{\"stringValue\":\"\(JSONText.escape(service))\"}}"
        let scope = "{\"name\":\"gateway\",\"version\":\"\(JSONText.escape(version))\"}"
        let scoped = "{\"scope\":\(scope),\"spans\":[\(spans.joined(separator: ","))]}"
        let resource = "{\"resource\":{\"attributes\":[\(name)]},\"scopeSpans\":[\(scoped)]}"
        return "{\"resourceSpans\":[\(resource)]}"
    }
}
