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
}
