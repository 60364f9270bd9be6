import Foundation
import Synchronization

/// Values that several threads add to.
final class Collected<Value: Sendable>: Sendable {
    private let box = Mutex<[Value]>([])
    var values: [Value] { box.withLock { $0 } }
    func append(contentsOf more: [Value]) { box.withLock { $0 += more } }
}

/// Work beside the test, with its error kept for the one who joins.
final class TestThread: Sendable {
    private let outcome = Mutex<Result<Void, any Error>?>(nil)

    init(_ body: @escaping @Sendable () throws -> Void) {
        Thread.detachNewThread {
            let result = Result { try body() }
            self.outcome.withLock { $0 = result }
        }
    }

    func join(within seconds: Double) throws {
        try Deadline(seconds: seconds).wait("a thread") { outcome.withLock { $0 } }.get()
    }
}
