import Limits
import Testing

@testable import KeyManagement

/// Windows in the store that other programs have written to.
@Suite("Reading windows")
struct WindowUseTests {
    private static let now: Int64 = 1_700_000_000_000_000
    private static let minute = Window(limit: 100, lengthMicroseconds: 60_000_000)

    private func read(_ entries: [String], cost: Int64 = 1) -> WindowUse {
        WindowUse(Self.minute, entries, cost: cost, nowMicroseconds: Self.now)
    }

    @Test(
        "an instant or a number of permits that no limiter writes ends nothing",
        arguments: [
            ["\(Int64.max)"], ["\(Int64.min)", "\(Int64.max)"], ["r:0", "\(Int64.max):\(Int64.max)"],
            ["r:0", "\(now):\(Int64.max)", "\(now):\(Int64.max)"],
            ["r:0", "\(now):\(Int64.min)", "\(now):\(Int64.min)"],
            ["r:0;a/0=\(Int64.max):\(Int64.max):1;a/1=\(Int64.max):\(Int64.max):1"],
            ["r:0;a/0=\(Int64.max):\(now):1", "\(now):\(Int64.max)"],
        ])
    func oddEntries(_ entries: [String]) {
        for cost in [1, LimitSpecification.limitMaximum] {
            let use = read(entries, cost: cost)
            #expect(use.used >= 0 && use.leased >= 0 && use.remaining >= 0)
            #expect(use.course.allSatisfy { $0 >= 0 })
            #expect(use.json.contains("\"used\":\(use.used)"))
        }
    }

    @Test("what a limiter writes is read as before")
    func ownEntries() {
        let now = Self.now
        let use = read([
            "r:0;a/0=5:\(now + 1_000_000):7;a/1=3:\(now + 2_000_000):8;b/0=1:\(now - 1):9",
            "\(now - 60_000_001):50", "\(now - 30_000_000):10", "\(now):20",
        ])
        #expect(use.used == 39 && use.leased == 9 && use.remaining == 61)
        #expect(
            use.holders == [
                WindowUse.Holder(node: "a", permits: 8, endsInMicroseconds: 2_000_000),
                WindowUse.Holder(node: "b", permits: 1, endsInMicroseconds: 0),
            ])
        #expect(use.nextPermitInMicroseconds == 30_000_001 && use.fitsInMicroseconds == 0)
        #expect(use.course.reduce(0, +) == 30)
    }
}
