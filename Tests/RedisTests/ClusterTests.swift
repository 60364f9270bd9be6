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
            ("ERR user_script:9: Script attempted to access a non local key in a cluster node", .tryAgain),
            ("NOSCRIPT No matching script. Please use EVAL.", .noScript),
            ("READONLY You can't write against a read only replica.", .readOnly),
            ("CLUSTERDOWN The cluster is down", .away), ("LOADING Redis is loading", .away),
            ("WRONGTYPE Operation against a key", .other), ("", .other),
        ] as [(String, StoreRefusal)])
    func refusals(_ text: String, _ refusal: StoreRefusal) {
        #expect(StoreRefusal(text: text) == refusal)
    }

    @Test("a node's view names the masters, with names where there are some, and their slots")
    func view() throws {
        let text = """
            a1 127.0.0.1:7001@17001 master - 0 1 2 connected 5461-10922 [93-<-a0]
            a0 :7000@17000 myself,master - 0 0 1 connected 0-99 101 [93->-a1]
            a2 10.0.0.3:7002@17002,redis-2.example,shard-id=x master,fail? - 0 1 3 connected 10923-16383
            a3 127.0.0.1:7003@17003 slave a0 0 1 1 connected
            a4 127.0.0.1:7004@17004 master - 0 1 0 connected
            a5 127.0.0.1:7005@17005 master,fail - 0 1 0 disconnected
            a6 127.0.0.1:7006@17006 master,fail - 0 1 0 disconnected 102
            a7 :0@0 master,noaddr - 0 1 0 disconnected 103

            """
        let view = try #require(ClusterView(text, askedAt: "here"))
        let nodes = view.masters.map { "\($0.node)" }
        #expect(
            nodes == [
                "127.0.0.1:7001", "127.0.0.1:7004", "127.0.0.1:7006", "here:7000", "redis-2.example:7002",
            ])
        func owner(_ slot: Int) -> String? {
            view.owners[slot] == ClusterSlot.nobody ? nil : nodes[Int(view.owners[slot])]
        }
        #expect(owner(0) == "here:7000" && owner(99) == "here:7000" && owner(101) == "here:7000")
        #expect(owner(100) == nil && owner(103) == nil)
        #expect(owner(102) == "127.0.0.1:7006")
        #expect(owner(5_461) == "127.0.0.1:7001" && owner(16_383) == "redis-2.example:7002")
    }

    @Test(
        "a view that cannot be read is none",
        arguments: [
            "", "x", "a0 127.0.0.1:7000@17000 slave a1 0 0 1 connected",
            "a0 127.0.0.1:x@17000 master - 0 0 1 connected 0-1",
            "a0 127.0.0.1:7000@17000 master - 0 0 1 connected 0-16384",
            "a0 127.0.0.1:7000@17000 master - 0 0 1 connected 7-3",
            "a0 127.0.0.1:7000@17000 master - 0 0 1 connected x",
        ])
    func noView(_ text: String) {
        #expect(ClusterView(text, askedAt: "here") == nil)
    }

    @Test(
        "a command goes where its first name is",
        arguments: [
            (["GET", "foo"], 12_182), (["hgetall", "foo"], 12_182),
            (["EVAL", "return 1", "1", "foo"], 12_182),
            (["EVAL", "return 1", "0", "foo"], nil), (["PING"], nil), (["CONFIG", "GET", "foo"], nil),
            (["XADD", "foo", "*", "a", "b"], 12_182),
            (["XREAD", "COUNT", "1", "STREAMS", "foo", "0"], 12_182),
            (["OBJECT", "ENCODING", "foo"], 12_182), (["GET"], nil), ([], nil),
        ] as [([String], UInt16?)])
    func places(_ command: [String], _ slot: UInt16?) {
        #expect(ClusterClient.slot(of: command) == slot)
    }
}
