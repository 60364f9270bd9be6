import Limits
import Testing

@Suite("Leases as they stand in Redis")
struct HeldLeaseTests {
    @Test("a lease is read as the script writes it")
    func reads() throws {
        let text = "r:12@5f3a:1764000000400000;77-ab/3=250:1764000000500000:9;b/0=1:2:3"
        let leases = HeldLease.held(inHead: text)
        #expect(leases.map(\.holder) == ["77-ab/3", "b/0"] && leases.map(\.permits) == [250, 1])
        #expect(leases[0].endMicroseconds == 1_764_000_000_500_000 && leases[0].node == "77-ab")
        #expect(HeldLease.held(inHead: "1764000000400000").isEmpty)
        // A note of what was told holds nothing.
        #expect(HeldLease.held(inHead: "r:12;a/1=0:1764000000500000:9;b/0=1:2:3").map(\.holder) == ["b/0"])
    }

    @Test(
        "what is not a lease is not read",
        arguments: [
            "", "h", "h=1", "h=1:2", "h=1:2:3:4", "h=-1:2:3", "h=1:-2:3", "h=a:2:3", "h=1:2:x", "h=1::3",
            "=1:2:3", "h=1:2:3=4",
        ])
    func refuses(_ text: String) { #expect(HeldLease(text[...]) == nil) }

    @Test("keys are named by whole seconds where they suffice")
    func names() {
        #expect(Window(limit: 1, lengthMicroseconds: 60_000_000).keySuffix == "60s")
        #expect(Window(limit: 1, lengthMicroseconds: 250_000).keySuffix == "250ms")
        #expect(TakeScript.account(inKey: "gateway:limit:{a:b}:60s") == "a:b")
        #expect(TakeScript.account(inKey: "gateway:limit:60s") == nil)
    }
}
