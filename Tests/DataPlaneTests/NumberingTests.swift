import Testing

@testable import DataPlane

/// Numbers that outlive configurations.
@Suite("Numbering")
struct NumberingTests {
    @Test("a name keeps its number in whatever company and order, and comes back to it")
    func stable() {
        var numbering = Numbering(capacity: 4)
        let first = numbering.assign(["a", "b", "a"])
        #expect(first?.numbers == [0, 1, 0])
        let second = numbering.assign(["c", "b"])
        #expect(second?.numbers == [2, 1])
        let again = numbering.assign(["a", "b"])
        #expect(again?.numbers == [0, 1])
        #expect(again?.fresh.isEmpty == true)
    }

    @Test("a number is given to another name only when no unused one is left, the longest retired first")
    func reuse() {
        var numbering = Numbering(capacity: 3)
        _ = numbering.assign(["a"])
        _ = numbering.assign(["b"])
        let third = numbering.assign(["c"])
        #expect(third?.numbers == [2])
        let fourth = numbering.assign(["d", "c"])
        #expect(fourth?.numbers == [0, 2])
        #expect(fourth?.fresh == [0])
    }

    @Test("more names than numbers change nothing")
    func full() {
        var numbering = Numbering(capacity: 2)
        _ = numbering.assign(["a", "b"])
        let refused = numbering.assign(["a", "b", "c"])
        #expect(refused == nil)
        let again = numbering.assign(["b", "a"])
        #expect(again?.numbers == [1, 0])
    }
}
