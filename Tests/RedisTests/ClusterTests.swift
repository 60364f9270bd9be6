import Testing

@testable import Redis

@Suite("Slots and redirections")
struct ClusterTests {
    @Test(
        "a name's slot is the one that Redis computes",
        arguments: [
            ("123456789", 12_739), ("foo", 12_182), ("", 0), ("gateway:limit:{acme}:60s", 11_304),
            ("{acme}", 11_304), ("acme", 11_304), ("foo{}{bar}", 8_363), ("foo{{bar}}zap", 4_015),
            ("foo{bar", 15_278),
        ])
    func slots(_ name: String, _ slot: UInt16) {
        #expect(ClusterSlot.of(name: Array(name.utf8)) == slot)
    }

    @Test(
        "an error reply says where the command goes, or that it goes nowhere",
        arguments: [
            ("MOVED 3999 127.0.0.1:6381", .moved(slot: 3_999, StoreNode(host: "127.0.0.1", port: 6_381))),
            ("MOVED 3999 ::1:6381", .moved(slot: 3_999, StoreNode(host: "::1", port: 6_381))),
            ("MOVED 1 :6381", .moved(slot: 1, StoreNode(host: "", port: 6_381))),
            ("MOVED 16384 127.0.0.1:6381", .away), ("MOVED", .away), ("MOVED x 127.0.0.1:1", .away),
            ("MOVED 1 127.0.0.1:0", .away), ("MOVED 1 127.0.0.1", .away),
            ("ASK 3999 a.example:6381", .ask(StoreNode(host: "a.example", port: 6_381))), ("ASK 1", .away),
            ("TRYAGAIN Multiple keys request during rehashing of slot", .tryAgain),
            ("NOSCRIPT No matching script. Please use EVAL.", .noScript),
            ("READONLY You can't write against a read only replica.", .readOnly),
            ("CLUSTERDOWN The cluster is down", .away), ("LOADING Redis is loading", .away),
            ("WRONGTYPE Operation against a key", .other), ("", .other),
        ] as [(String, StoreRefusal)])
    func refusals(_ text: String, _ refusal: StoreRefusal) {
        #expect(StoreRefusal(text: text) == refusal)
    }
}
