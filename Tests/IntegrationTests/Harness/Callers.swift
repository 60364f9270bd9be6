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

    /// - Parameters:
    ///   - reconnects: whether every call has a connection of its own.
    ///   - endsWhenTold: whether a caller stops asking when its connection ends, as behind a balancer that
    ///     sends it elsewhere.
    init(
        _ count: Int, of gateway: Gateway, key: TestKey, reconnects: Bool = false, endsWhenTold: Bool = false
    ) {
        let started = (0..<count).map { _ in
            TestThread { [self] in
                while !isOver.withLock({ $0 }) {
                    let client = try gateway.connect()
                    while !isOver.withLock({ $0 }), ask(client, key), !reconnects {}
                    if endsWhenTold { return }
                }
            }
        }
        threads.withLock { $0 = started }
    }

    /// - Returns: whether the connection goes on.
    private func ask(_ client: TLSClient, _ key: TestKey) -> Bool {
        let start = ContinuousClock.now
        let response = try? {
            try client.send(Gateway.request(key: key))
            return try client.response()
        }()
        calls.append(contentsOf: [Call(status: response?.status ?? 0, duration: start.duration(to: .now))])
        return response.map { $0["Connection"] != "close" } ?? false
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
