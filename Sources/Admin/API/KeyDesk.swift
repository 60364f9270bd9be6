import DataPlane
import KeyManagement
import Reactor
import Synchronization

/// The thread that may wait for the store on behalf of the admin API. The control loop hands requests over
/// and collects the answers, so that a store that hangs holds up whoever asked for keys and nobody else.
final class KeyDesk: Sendable {
    /// Requests that wait or are under way. A store that hangs keeps one for two seconds: who comes after
    /// these would wait longer than anybody does.
    private static let waitingMax = 32
    /// For every exchange with the store.
    private static let timeoutMilliseconds = 2_000

    private let requests: Mailbox<APIRequest>
    private let answers: Mailbox<(ticket: UInt64, answer: SmallAnswer)>
    private let stopping: Wakeup
    private let waiting = Atomic<Int>(0)
    private let server: GatewayServer
    private let thread = Mutex<ThreadHandle?>(nil)

    init(_ server: GatewayServer) throws(SystemError) {
        self.server = server
        requests = try Mailbox()
        answers = try Mailbox()
        stopping = try Wakeup()
    }

    /// Readable when there are answers to take.
    var wakeup: Wakeup { answers.wakeup }

    func start() throws(SystemError) {
        let started = try Thread.start(name: "admin") { [self] in serve() }
        thread.withLock { $0 = started }
    }

    /// Ends after the request in hand.
    func stop() {
        stopping.signal()
        thread.withLock { handle in
            handle?.join()
            handle = nil
        }
    }

    /// Hands a request over.
    ///
    /// - Returns: false when too many wait already.
    func submit(_ request: APIRequest) -> Bool {
        guard waiting.load(ordering: .relaxed) < Self.waitingMax else { return false }
        waiting.add(1, ordering: .relaxed)
        requests.post(request)
        return true
    }

    /// Answers that have come since the last call.
    func takeAnswers() -> [(ticket: UInt64, answer: SmallAnswer)] { answers.takeAll() }

    private func serve() {
        // One store for as long as the configuration is the same: it keeps its connection, and knows what it
        // has looked for not long ago.
        var kept: (generation: UInt32, store: KeyStore)?
        while true {
            Readiness.wait(requests.wakeup.descriptor, stopping.descriptor)
            for request in requests.takeAll() {
                if Readiness.pause(milliseconds: 0, unless: stopping) { return }
                let plan = server.plan
                let answer = KeyEndpoints.answer(request) { () throws(KeyStoreProblem) in
                    if let kept, kept.generation == plan.generation {
                        kept.store.renew()
                        return kept.store
                    }
                    let store = try KeyStore(
                        plan.configuration, timeoutMilliseconds: Self.timeoutMilliseconds, connects: false)
                    kept = (plan.generation, store)
                    return store
                }
                waiting.subtract(1, ordering: .relaxed)
                answers.post((request.ticket, answer))
            }
            if Readiness.pause(milliseconds: 0, unless: stopping) { return }
        }
    }
}
