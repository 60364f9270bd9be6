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
        "a clock that was set is noticed with its next answer, and no instant is then taken for another",
        arguments: [-3_600_000_000, -1_000_000, -200_000, 200_000, 1_000_000, 3_600_000_000] as [Int64],
        [2_000, 150_000] as [Int64])
    func set(_ step: Int64, _ delay: Int64) {
        var world = World(3)
        var clock = StoreClock()
        let before = world.offset
        var steps = 0
        for round in 0..<400 {
            if round == 100 || round == 300 { world.offset += round == 100 ? step : 7_000_000 }
            world.wait(0...1_000_000)
            let asked = world.now
            let bounds = clock.bounds(asked, slack: 250_000)
            // Sometimes quick, sometimes not.
            world.wait(20...(round % 3 == 0 ? 200 : delay / 2))
            let told = world.store(world.now)
            let truth = told - (world.offset - before)
            if clock.isKnown { #expect(bounds.low <= truth && bounds.high >= truth) }
            world.wait(20...(round % 3 == 0 ? 200 : delay / 2))
            if clock.observe(told, asked: asked, answered: world.now) != 0 { steps += 1 }
            let set = world.offset - before
            #expect(clock.skew.low <= set && clock.skew.high >= set)
            let later = world.now + Int64.random(in: 0...1_000_000, using: &world.random)
            let then = world.store(later) - set
            #expect(clock.earliest(later) <= then && clock.latest(later) >= then)
        }
        #expect(steps == 2)
        // The quickest of the answers since says it to a few milliseconds.
        #expect(clock.skew.high - clock.skew.low < 10_000)
    }

    @Test(
        "a clock that is made faster or slower is followed, and what is known of it can be told",
        arguments: [83_333, -83_333] as [Int64])
    func slewed(_ rate: Int64) {
        var world = World(4)
        var clock = StoreClock()
        let before = world.offset
        for _ in 0..<4_000 {
            let asked = world.now
            world.wait(20...200)
            let told = world.store(world.now)
            world.wait(20...200)
            _ = clock.observe(told, asked: asked, answered: world.now)
            let set = world.offset - before
            #expect(StoreClock.Skew("\(clock.skew)") == clock.skew)
            // As far as two clocks may drift apart meanwhile.
            let known = 2_000 + (world.now - 9_000_000) / 1_000
            #expect(clock.skew.low <= set + known && clock.skew.high >= set - known)
            world.wait(600...1_400)
            world.offset += (world.now - asked) * rate / 1_000_000
        }
    }

    @Test("what gateways tell each other of the clock is read as it was written")
    func told() {
        let skew = StoreClock.Skew(low: -3_600_000_100, high: -3_600_000_000)
        #expect(StoreClock.Skew("\(skew)") == skew)
        for text in ["", "5", "5:", "6:5", "a:b", "1:2:3"] { #expect(StoreClock.Skew(text) == nil) }
        // A clock that is known is not set by hearsay: this one begins with it.
        var clock = StoreClock(skew: skew)
        #expect(clock.observe(1_764_000_000_000_000, asked: 10, answered: 20) == 0)
        #expect(clock.earliest(20) == 1_764_003_600_000_000 && clock.latest(10) == 1_764_003_600_000_100)
    }

    @Test("nothing is said of a clock that has not spoken")
    func unknown() {
        let clock = StoreClock()
        #expect(!clock.isKnown)
        #expect(clock.bounds(5, slack: 9) == StoreClock.Bounds(low: 0, middle: 0, high: 0))
    }
}
