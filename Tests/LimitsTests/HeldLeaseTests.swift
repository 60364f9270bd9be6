import Limits
import Testing

@Suite("Leases as they stand in Redis")
struct HeldLeaseTests {
    @Test("a lease is read as the script writes it")
    func reads() throws {
        let lease = try #require(HeldLease(holder: "77-ab/3", value: "250:1764000000500000:9"))
        #expect(lease.permits == 250 && lease.endMicroseconds == 1_764_000_000_500_000)
        #expect(lease.node == "77-ab")
    }

    @Test(
        "what is not a lease is not read",
        arguments: ["", "1", "1:2", "1:2:3:4", "-1:2:3", "1:-2:3", "a:2:3", "1:2:x", "1::3"])
    func refuses(_ value: String) { #expect(HeldLease(holder: "h", value: value) == nil) }

    @Test("keys are named by whole seconds where they suffice")
    func names() {
        #expect(Window(limit: 1, lengthMicroseconds: 60_000_000).keySuffix == "60s")
        #expect(Window(limit: 1, lengthMicroseconds: 250_000).keySuffix == "250ms")
        #expect(TakeScript.account(inKey: "gateway:lease:{a:b}:60s") == "a:b")
        #expect(TakeScript.account(inKey: "gateway:lease:60s") == nil)
    }
}
