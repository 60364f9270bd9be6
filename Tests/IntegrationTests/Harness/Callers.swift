import Foundation
import Synchronization

/// Callers that ask without a pause until they are stopped, and what each of their calls came to.
final class Callers: Sendable {
    struct Call: Sendable {
        /// 0 when the connection ended without an answer.
        var status: Int
        var duration: Duration
    }

    private let calls = Collected<Call>()
    private let isOver = Mutex(false)
    private let threads = Mutex<[TestThread]>([])

    init(_ count: Int, of gateway: Gateway, key: TestKey) {
        let started = (0..<count).map { _ in
            TestThread { [self] in
                while !isOver.withLock({ $0 }) {
                    let client = try gateway.connect()
                    while !isOver.withLock({ $0 }), ask(client, key) {}
                }
            }
        }
        threads.withLock { $0 = started }
    }

    /// - Returns: whether the connection goes on.
    private func ask(_ client: TLSClient, _ key: TestKey) -> Bool {
        let start = ContinuousClock.now
        let status = try? {
            try client.send(Gateway.request(key: key))
            return try client.response().status
        }()
        calls.append(contentsOf: [Call(status: status ?? 0, duration: start.duration(to: .now))])
        return status != nil
    }

    /// Waits until that many more calls are over.
    func wait(for more: Int) throws {
        let wanted = calls.values.count + more
        try Deadline(seconds: 20).wait("\(more) calls") { calls.values.count >= wanted }
    }

    func stop() throws -> [Call] {
        isOver.withLock { $0 = true }
        for thread in threads.withLock({ $0 }) { try thread.join(within: 20) }
        return calls.values
    }
}
