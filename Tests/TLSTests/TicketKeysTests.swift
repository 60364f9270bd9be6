import Testing

@testable import TLS

@Suite("Ticket keys")
struct TicketKeysTests {
    @Test("a ticket outlives one rotation and no second one")
    func rotation() {
        let keys = TicketKeys()
        let first = keys.current
        #expect(keys.find(name: first.name)?.isOld == false)
        keys.rotate()
        #expect(keys.current.name != first.name)
        #expect(keys.find(name: first.name)?.isOld == true)
        #expect(keys.find(name: first.name)?.key.cipher == first.cipher)
        keys.rotate()
        #expect(keys.find(name: first.name) == nil)
    }

    @Test(
        "keys that are handed over open what the former process has sealed, and rotate when they would have")
    func handOver() {
        let keys = TicketKeys()
        let alone = TicketKeys(handedOver: keys.handOver())
        #expect(alone.find(name: keys.current.name)?.key.cipher == keys.current.cipher)
        let first = keys.current
        keys.rotate()
        let both = TicketKeys(handedOver: keys.handOver())
        #expect(both.current.name == keys.current.name && both.current.mac == keys.current.mac)
        #expect(both.find(name: first.name)?.key.mac == first.mac)
        #expect(both.find(name: first.name)?.isOld == true)
        #expect(both.handOver() == keys.handOver())
        both.rotateIfDue(nowMicroseconds: 0)
        #expect(both.current.name == keys.current.name)
        both.rotateIfDue(nowMicroseconds: Int64.max)
        #expect(both.current.name != keys.current.name)
    }

    @Test("what is no hand-over gives new keys", arguments: [0, 5, 20, 30, 104, 183, 186])
    func notHandedOver(_ count: Int) {
        let keys = TicketKeys()
        keys.rotate()
        let whole = keys.handOver()
        let cut = count == 104 ? Array(repeating: 7, count: 105) : Array(whole.prefix(count) + [1])
        #expect(TicketKeys(handedOver: cut).current.name != keys.current.name)
    }
}
