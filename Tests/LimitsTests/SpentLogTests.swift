import Limits
import Testing

@Suite("What was spent without asking")
struct SpentLogTests {
    private static let plan = LimitPlan([Window(limit: 100, lengthMicroseconds: 60_000_000)])

    @Test("what comes while it is being told is told next, and what is told again keeps its number")
    func meanwhile() {
        var lease = Lease(Self.plan)
        lease.spendUnasked(2, nowMicroseconds: 1_000_000)
        lease.beginReport(call: 7)
        lease.spendUnasked(3, nowMicroseconds: 1_000_001)
        lease.answerIsLost()
        lease.beginReport(call: 8)
        lease.spendUnasked(5, nowMicroseconds: 1_000_002)
        #expect((0..<lease.unasked.count).map { lease.unasked[$0].call } == [7, 8, 0])
        lease.renew(
            permits: 0, call: 8, nowMicroseconds: 1_000_003, lastMicroseconds: 1_000_003,
            base: Decision(isGranted: true, count: 1))
        #expect(lease.isOwing && lease.unasked.count == 1)
        #expect(lease.unasked[0].at == 1_000_002 && lease.unasked[0].permits == 5)
    }

    @Test("without room what has come is told by itself, and nothing that was told is told again with it")
    func full() {
        var log = SpentLog()
        for number in 0..<Int64(SpentLog.capacity) { log.add(1, at: number * 100, grain: 10) }
        log.tell(by: 3)
        log.add(4, at: 9_000, grain: 10)
        #expect(log.count == SpentLog.capacity)
        let told = log[SpentLog.capacity - 2]
        #expect(told.at == 2_300 && told.permits == 2 && told.call == 3)
        log.add(1, at: 9_500, grain: 10)
        log.forgetTold()
        #expect(log.count == 1 && log[0].at == 9_500 && log[0].permits == 5)
    }
}
