import Testing

@testable import Reactor

/// How many threads a process is worth.
@Suite("Processors")
struct ProcessorTests {
    @Test(
        "a quota is rounded up, and what is none bounds nothing",
        arguments: [
            ("150000 100000\n", 2), ("100000 100000\n", 1), ("100001 100000", 2), ("10000 100000", 1),
            ("max 100000\n", nil), ("", nil), ("100000", nil), ("0 100000", nil), ("100000 0", nil),
            ("x y", nil),
        ] as [(String, Int?)])
    func quota(_ text: String, _ processors: Int?) {
        #expect(ProcessLimits.processors(paidFor: text) == processors)
    }

    @Test(
        "a group is found by the unified hierarchy's line only",
        arguments: [
            ("0::/\n", ""), ("0::/system.slice/gateway.service\n", "/system.slice/gateway.service"),
            ("12:cpu:/x\n0::/y\n", "/y"), ("12:cpu:/x\n", nil), ("", nil),
        ] as [(String, String?)])
    func group(_ text: String, _ path: String?) {
        #expect(ProcessLimits.controlGroup(text) == path)
    }

    @Test("there is at least one, and no more than the machine has")
    func count() {
        #expect((1...8_192).contains(ProcessLimits.processorCount()))
    }
}
