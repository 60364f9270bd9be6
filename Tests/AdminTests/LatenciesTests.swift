import DataPlane
import Testing

@testable import Admin

@Suite("Latencies")
struct LatenciesTests {
    private func histogram(_ counts: [Int: UInt64]) -> Latencies {
        var result = Latencies()
        result.add { counts[$0] ?? 0 }
        return result
    }

    @Test("without a call there is no quantile")
    func empty() {
        #expect(histogram([:]).quantile(0.5) == nil)
    }

    @Test("a quantile lies inside the bucket that holds it")
    func inside() throws {
        // 90 calls of 0.1 to 0.25 ms, 10 of 5 to 10 ms.
        let latencies = histogram([1: 90, 6: 10])
        let p50 = try #require(latencies.quantile(0.5))
        let p99 = try #require(latencies.quantile(0.99))
        #expect((0.0001...0.00025).contains(p50))
        #expect((0.005...0.01).contains(p99))
    }

    @Test("what is slower than every bound counts as the last bound")
    func beyond() throws {
        #expect(histogram([LatencyBuckets.count - 1: 3]).quantile(0.5) == 30)
    }

    @Test("only what came later counts")
    func difference() throws {
        let later = histogram([0: 100, 9: 5]).since(histogram([0: 100]))
        #expect(later.count == 5)
        #expect(try #require(later.quantile(0.01)) > 0.01)
    }
}
