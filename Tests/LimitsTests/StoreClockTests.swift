import Limits
import TestSupport
import Testing

@Suite("Clock of the store")
struct StoreClockTests {
    /// A store whose clock drifts against ours and can be set, asked over a network that takes its time.
    struct World {
        var random: Seeded
        /// Parts in a million by which the store's clock is fast.
        let drift: Int64
        var now: Int64 = 9_000_000
        var offset: Int64 = 1_764_000_000_000_000

        init(_ seed: Int) {
            random = Seeded(UInt64(seed))
            drift = Int64(seed % 11 - 5) * 100
        }

        func store(_ now: Int64) -> Int64 { offset + now + now * drift / 1_000_000 }

        mutating func wait(_ range: ClosedRange<Int64>) { now += Int64.random(in: range, using: &random) }
    }

    @Test("a clock that runs by itself is never taken for one that was set", arguments: 0..<11)
    func steady(_ seed: Int) {
        var world = World(seed)
        var clock = StoreClock()
        for _ in 0..<2_000 {
            world.wait(0...3_000_000)
            let asked = world.now
            world.wait(20...40_000)
            let told = world.store(world.now)
            world.wait(20...40_000)
            #expect(clock.observe(told, asked: asked, answered: world.now) == 0)
            let later = world.now + Int64.random(in: 0...60_000_000, using: &world.random)
            let truth = world.store(later)
            #expect(clock.earliest(later) <= truth && clock.latest(later) >= truth)
            #expect(clock.latest(asked) >= world.store(asked))
            let end = truth + 500_000
            #expect(world.store(clock.surelyBefore(end)) < end)
            #expect(clock.local(told + 1_000_000) >= asked + 999_000)
        }
    }

    @Test(
        "a clock that was set is noticed with its next answer, and time goes on",
        arguments: [-3_600_000_000, -1_000_000, -200_000, 200_000, 1_000_000, 3_600_000_000] as [Int64])
    func set(_ step: Int64) {
        var world = World(3)
        var clock = StoreClock()
        var skew: Int64 = 0
        let before = world.offset
        var steps = 0
        for round in 0..<200 {
            if round == 100 { world.offset += step }
            world.wait(0...1_000_000)
            let asked = world.now
            let bounds = clock.bounds(asked, slack: 250_000)
            world.wait(20...2_000)
            let told = world.store(world.now) - skew
            let truth = world.store(world.now) - (world.offset - before)
            // Once it was set, time may go on by as much too early as one answer took.
            let tolerance: Int64 = steps == 0 ? 0 : 10_000
            if clock.isKnown {
                #expect(bounds.low <= truth + tolerance && bounds.high >= truth - tolerance)
            }
            world.wait(20...2_000)
            let found = clock.observe(told, asked: asked, answered: world.now)
            skew += found
            if found != 0 { steps += 1 }
        }
        #expect(steps == 1)
        // Within the time of one answer and the drift of a second.
        #expect(abs(skew - step) < 10_000)
    }

    @Test("nothing is said of a clock that has not spoken")
    func unknown() {
        let clock = StoreClock()
        #expect(!clock.isKnown)
        #expect(clock.bounds(5, slack: 9) == StoreClock.Bounds(low: 0, middle: 0, high: 0))
    }
}
