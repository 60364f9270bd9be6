import Configuration
import DataPlane
import KeyManagement
import Keys
import Limits
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

    /// An answer, and what has to come into force before it is given.
    struct Finished: Sendable {
        var ticket: UInt64
        var answer: SmallAnswer
        /// All keys that live in memory, when one of them has changed.
        var memoryKeys: [KeyRecord]?
    }

    private let requests: Mailbox<APIRequest>
    private let answers: Mailbox<Finished>
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
    func takeAnswers() -> [Finished] { answers.takeAll() }

    /// Without a store, keys live in this process.
    private func makeMemory() -> MemoryKeys? {
        let configuration = server.plan.configuration
        guard case .memory = configuration.store.endpoint else { return nil }
        let memory = MemoryKeys(prefix: configuration.store.prefix)
        memory.spent = { [shared = server.shared] account, limits in
            shared.spent(byAccount: account, limits)
        }
        return memory
    }

    private func serve() {
        // One store for as long as the configuration is the same: it keeps its connection, and knows what it
        // has looked for not long ago.
        let memory = makeMemory()
        var kept: (generation: UInt32, store: KeyStore)?
        while true {
            Readiness.wait(requests.wakeup.descriptor, stopping.descriptor)
            for request in requests.takeAll() {
                if Readiness.pause(milliseconds: 0, unless: stopping) { return }
                let plan = server.plan
                memory?.note(seen: server.shared.takeSeen(), calls: server.shared.takeCalls())
                let answer = KeyEndpoints.answer(request) { () throws(KeyStoreProblem) in
                    if let kept, kept.generation == plan.generation {
                        kept.store.renew()
                        return kept.store
                    }
                    var configuration = plan.configuration
                    if let memory {
                        configuration.keys.staticKeys.removeAll { memory.holds($0.digest) }
                    }
                    let store = try KeyStore(
                        configuration, memory: memory, timeoutMilliseconds: Self.timeoutMilliseconds,
                        connects: false)
                    kept = (plan.generation, store)
                    return store
                }
                waiting.subtract(1, ordering: .relaxed)
                answers.post(
                    Finished(ticket: request.ticket, answer: answer, memoryKeys: memory?.takeChange()))
            }
            if Readiness.pause(milliseconds: 0, unless: stopping) { return }
        }
    }
}
