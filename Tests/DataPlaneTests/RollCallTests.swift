import Testing

@testable import DataPlane

/// Who has told a Redis that lost its last writes what it let in.
@Suite("Roll call")
struct RollCallTests {
    @Test("it is open until all gateways have answered, and no longer than somebody may be waited for")
    func ends() {
        let roll = RollCall()
        #expect(!roll.isOpen(1_000))
        roll.begin(history: 7, gateways: 3, nowMicroseconds: 1_000)
        #expect(roll.isOpen(1_000 + HardLimits.rollCallMicroseconds - 1))
        #expect(!roll.isOpen(1_000 + HardLimits.rollCallMicroseconds))
        roll.heard(2, in: 7)
        #expect(roll.isOpen(2_000))
        roll.heard(3, in: 7)
        #expect(!roll.isOpen(2_000))
    }

    @Test("a gateway answers when all its workers have told, each counted once")
    func workers() {
        let roll = RollCall()
        roll.begin(history: 7, gateways: 2, nowMicroseconds: 0)
        #expect(!roll.hasTold(0, of: 2, in: 7))
        #expect(!roll.hasTold(0, of: 2, in: 7))
        #expect(roll.hasTold(1, of: 2, in: 7))
    }

    @Test("what was told before the next loss does not count after it")
    func next() {
        let roll = RollCall()
        roll.begin(history: 7, gateways: 2, nowMicroseconds: 0)
        #expect(roll.hasTold(0, of: 1, in: 7))
        roll.begin(history: 8, gateways: 2, nowMicroseconds: 10)
        #expect(!roll.hasTold(0, of: 1, in: 7))
        roll.heard(2, in: 7)
        #expect(roll.isOpen(20))
        #expect(roll.hasTold(0, of: 1, in: 8))
        roll.heard(2, in: 8)
        #expect(!roll.isOpen(20))
    }

    @Test("one gateway alone waits for nobody")
    func alone() {
        let roll = RollCall()
        roll.begin(history: 7, gateways: 1, nowMicroseconds: 0)
        #expect(!roll.isOpen(0))
    }
}
