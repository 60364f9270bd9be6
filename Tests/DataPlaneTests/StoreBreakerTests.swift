import Testing

@testable import DataPlane

@Suite("Breaker of the store")
struct StoreBreakerTests {
    @Test("a store that was lost once has to answer once, one that comes and goes again and again")
    func proofs() {
        var breaker = StoreBreaker()
        #expect(!breaker.isProbing)
        var wanted: [Int] = []
        for loss in 0..<6 {
            breaker.trip(nowMicroseconds: Int64(loss) * 1_000_000)
            wanted.append(breaker.proofsLeft)
        }
        #expect(wanted == [1, 2, 4, 8, 8, 8])
        for _ in 0..<8 { breaker.proved() }
        #expect(!breaker.isProbing)
        breaker.trip(nowMicroseconds: 60_000_000)
        #expect(breaker.proofsLeft == 1)
    }

    @Test("questions are asked one after the other, and none when all is well")
    func probes() {
        var breaker = StoreBreaker()
        var asked = [breaker.mayProbe(nowMicroseconds: 0)]
        breaker.trip(nowMicroseconds: 0)
        for now: Int64 in [1_000, 50_999, 51_000] { asked.append(breaker.mayProbe(nowMicroseconds: now)) }
        breaker.proved()
        asked.append(breaker.mayProbe(nowMicroseconds: 200_000))
        #expect(asked == [false, true, false, true, false])
    }
}
