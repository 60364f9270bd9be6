import Reactor
import Testing

@testable import DataPlane

/// Names whose answers change.
@Suite("Name record")
struct NameRecordTests {
    private static func address(_ number: Int) -> SocketAddress {
        SocketAddress(ipv4: UInt32(0x0A00_0000 + number), port: 80)
    }

    private static func addresses(_ numbers: Int...) -> [SocketAddress] { numbers.map(address) }

    @Test("the order of an answer changes nothing, and what is known stands first")
    func order() {
        var record = NameRecord()
        #expect(record.take(Self.addresses(1, 2)).isChanged)
        #expect(!record.take(Self.addresses(2, 1)).isChanged)
        #expect(record.take(Self.addresses(3, 2, 1)).isChanged)
        #expect(record.addresses == Self.addresses(1, 2, 3))
    }

    @Test("an address is given up when it has been missing for a while, once, and not when it comes back")
    func missing() {
        var record = NameRecord()
        _ = record.take(Self.addresses(1, 2))
        #expect(record.take(Self.addresses(2)).retired.isEmpty)
        #expect(record.addresses == Self.addresses(2))
        #expect(record.take(Self.addresses(1, 2)).retired.isEmpty)
        for _ in 1..<NameRecord.missesMax { #expect(record.take(Self.addresses(3)).retired.isEmpty) }
        let last = record.take(Self.addresses(3))
        #expect(last.isChanged && Set(last.retired) == Set(Self.addresses(1, 2)))
        #expect(!record.take(Self.addresses(3)).isChanged)
    }

    @Test("many addresses, a few at a time, give none up, and fill no memory")
    func rotation() {
        var record = NameRecord()
        for turn in 0..<60 {
            let found = (0..<4).map { Self.address((turn * 4 + $0) % 12) }
            #expect(record.take(found).retired.isEmpty)
            #expect(Set(record.addresses) == Set(found))
        }
        for turn in 0..<1_000 {
            let found = (0..<100).map { Self.address(1_000 + turn * 100 + $0) }
            _ = record.take(found)
            #expect(record.addresses.count == HardLimits.addresses)
        }
        #expect(record.missing.count <= 8 * HardLimits.addresses)
    }
}
