import Testing

@testable import DataPlane

@Suite("Allowances")
struct AllowanceTests {
    @Test("a burst, then so much a second, and never more saved up than a burst")
    func rate() {
        var allowance = Allowance(perSecond: 50, burst: 50)
        func taken(at now: Int64) -> Int {
            var count = 0
            while allowance.take(nowMicroseconds: now) { count += 1 }
            return count
        }
        let start: Int64 = 1_000_000_000
        let counts = [start, start + 19_999, start + 20_000, start + 1_020_000, start + 99_000_000].map(taken)
        #expect(counts == [50, 0, 1, 50, 50])
    }
}
