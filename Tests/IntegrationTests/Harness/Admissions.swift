import Foundation

/// Callers of one limited account that ask again and again, and when each of their calls began and ended.
final class Admissions: Sendable {
    struct Call: Sendable {
        /// Microseconds since the callers began; the call was decided at some time between.
        var begun: Int64
        var ended: Int64
        var status: Int
    }

    private let calls = Collected<Call>()
    private let isOver = Collected<Bool>()
    private let threads: [TestThread]

    /// - Parameter pause: milliseconds between an answer and the next call, for a demand below the limit.
    init(_ count: Int, of gateways: Gateway..., key: TestKey, pause: Int32 = 0) {
        let epoch = ContinuousClock.now
        @Sendable func now() -> Int64 {
            let elapsed = epoch.duration(to: .now).components
            return elapsed.seconds * 1_000_000 + elapsed.attoseconds / 1_000_000_000_000
        }
        let (calls, isOver) = (calls, isOver)
        threads = (0..<count).map { number in
            TestThread {
                let client = try gateways[number % gateways.count].connect()
                while isOver.values.isEmpty {
                    let begun = now()
                    try client.send(Gateway.request(key: key))
                    let status = try client.response().status
                    calls.append(contentsOf: [Call(begun: begun, ended: now(), status: status)])
                    if pause > 0 { poll(nil, 0, pause) }
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
    /// The most admitted calls that were surely decided within a window of so many microseconds, because they
    /// began and ended in it: however long calls take, this is never more than what the window held.
    func worst(in length: Int64) -> Int {
        let admitted = filter { $0.status == 200 }.sorted { $0.begun < $1.begun }
        var worst = 0
        for (index, first) in admitted.enumerated() {
            let inside = admitted[index...].prefix { $0.begun <= first.begun + length }
            worst = Swift.max(worst, inside.count { $0.ended <= first.begun + length })
        }
        return worst
    }

    /// Permits a second.
    var rate: Double {
        let admitted = filter { $0.status == 200 }.map(\.begun)
        guard let first = admitted.min(), let last = admitted.max(), last > first else { return 0 }
        return Double(admitted.count) * 1_000_000 / Double(last - first)
    }
}
