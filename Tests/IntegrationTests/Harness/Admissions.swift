import Foundation
import TestSupport

/// Callers of one limited account that ask without a pause, and when each of their calls was begun.
final class Admissions: Sendable {
    struct Call: Sendable {
        /// Microseconds since the callers began.
        var begun: Int64
        var status: Int
    }

    private let calls = Collected<Call>()
    private let isOver = Collected<Bool>()
    private let threads: [TestThread]

    init(_ count: Int, of gateways: Gateway..., key: TestKey) {
        let epoch = ContinuousClock.now
        let (calls, isOver) = (calls, isOver)
        threads = (0..<count).map { number in
            TestThread {
                let client = try gateways[number % gateways.count].connect()
                while isOver.values.isEmpty {
                    let begun = epoch.duration(to: .now).components
                    try client.send(Gateway.request(key: key))
                    let status = try client.response().status
                    let microseconds = begun.seconds * 1_000_000 + begun.attoseconds / 1_000_000_000_000
                    calls.append(contentsOf: [Call(begun: microseconds, status: status)])
                }
            }
        }
    }

    /// Also when a step of the test fails: the callers must not outlive it.
    deinit { isOver.append(contentsOf: [true]) }

    var count: Int { calls.values.count }

    /// Waits until that many more calls are over.
    func wait(for more: Int) throws {
        let wanted = count + more
        try Deadline(seconds: 20).wait("\(more) calls") { count >= wanted }
    }

    func stop() throws -> [Call] {
        isOver.append(contentsOf: [true])
        for thread in threads { try thread.join(within: 20) }
        return calls.values
    }
}

extension [Admissions.Call] {
    /// The most calls that were admitted in any trailing window of so many microseconds.
    ///
    /// What is seen is when calls were begun, what counts is when they were decided: by `slack` the window is
    /// shorter, which is as long as a call takes on a busy machine.
    func worst(in length: Int64, slack: Int64 = 50_000) -> Int64 {
        let admitted = filter { $0.status == 200 }.map { (at: $0.begun, cost: Int64(1)) }
        return TrailingWindow.worst(admitted.sorted { $0.at < $1.at }, length - slack)
    }

    /// Permits a second.
    var rate: Double {
        let admitted = filter { $0.status == 200 }.map(\.begun)
        guard let first = admitted.min(), let last = admitted.max(), last > first else { return 0 }
        return Double(admitted.count) * 1_000_000 / Double(last - first)
    }
}
