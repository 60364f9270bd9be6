// The store's clock as seen from here. Time that decides is Redis's own, but a wall clock can be set, and
// then a window would be let go early, or not for hours. So the store's time is known twice: as it says it
// is, and as it must be by our monotonic clock since it last spoke. While both agree, what it says holds.
// When they do not, its clock has been set: the difference is subtracted from then on, and time goes on as
// if nothing had happened.
//
// By how much it was set is known only as well as one answer is quick, so the difference is kept as the two
// ends between which it lies, and later answers draw them closer together. Until they meet, permits are
// written down at the latest that the instant can be and let go by the earliest: a window is then longer by
// what is not known, and never shorter. Each caller knows its own ends, and all of them hold the one
// difference that there is, as long as their own clocks run. Those of a machine that stood still look like a
// store's that was set: see `ClockAgreement`.

/// Maps the monotonic clock of this machine to the clock of the store, without the jumps that it made.
package struct StoreClock: Sendable {
    /// By how much the store's clock has been set since gateways know it, in microseconds: between these.
    package struct Skew: Sendable, Equatable, CustomStringConvertible {
        package var low: Int64
        package var high: Int64

        package static let none = Skew(low: 0, high: 0)

        /// Whether both may be the same difference, as far as instants are known.
        package func meets(_ other: Skew) -> Bool {
            low <= other.high &+ toleranceMicroseconds && other.low <= high &+ toleranceMicroseconds
        }

        package init(low: Int64, high: Int64) {
            self.low = low
            self.high = high
        }

        /// As it stands in Redis under `gateway:clock`: `<low>:<high>`.
        ///
        /// - Returns: nil for anything else.
        package init?(_ text: String) {
            let ends = text.split(separator: ":", omittingEmptySubsequences: false).map { Int64($0) }
            guard ends.count == 2, let low = ends[0], let high = ends[1], low <= high,
                low >= -Self.maximumMicroseconds, high <= Self.maximumMicroseconds
            else { return nil }
            self.init(low: low, high: high)
        }

        package var description: String { "\(low):\(high)" }

        /// A clock that is a century off is somebody's mistake.
        private static let maximumMicroseconds: Int64 = 36_525 * 86_400_000_000
    }

    /// What a caller tells the store of the present instant.
    package struct Bounds: Sendable, Equatable {
        /// Not before this; 0 when nothing is known.
        package var low: Int64
        /// Not after this, if the question arrives at once.
        package var middle: Int64
        /// Not after this, if the question arrives at all.
        package var high: Int64

        package init(low: Int64, middle: Int64, high: Int64) {
            self.low = low
            self.middle = middle
            self.high = high
        }
    }

    /// Two clocks that are not set drift apart by less than one part in this many.
    private static let driftParts: Int64 = 1_000
    /// A question that arrives within this much arrives at once.
    private static let promptMicroseconds: Int64 = 5_000
    /// Answers and instants are whole microseconds, and drift is rounded.
    private static let toleranceMicroseconds: Int64 = 1_000

    /// What is subtracted from what the store says.
    package private(set) var skew: Skew
    /// What the last answer says of the skew by itself.
    package private(set) var seen: Skew
    /// How often it was noticed that the store's clock had been set.
    package private(set) var steps = 0

    /// The store's time was not before `low` at `answered`, and not after `high` at `asked`, on our clock.
    /// The two may stem from different answers: each from the one that says most.
    private var low: Int64 = 0
    private var high: Int64 = 0
    private var asked: Int64 = 0
    private var answered: Int64 = 0
    /// What the last answer said, at the earliest, and when it came.
    private var recent: Int64 = 0
    private var recentlyAnswered: Int64 = 0
    /// When it was noticed last that the clock had been set. Of a question that was asked before it is not
    /// known which clock has answered it.
    private var noticed = Int64.min

    /// - Parameter skew: what others have found out.
    package init(skew: Skew = .none) { (self.skew, seen) = (skew, skew) }

    /// Whether the store has ever told its time.
    package var isKnown: Bool { low > 0 }

    /// The store's time is not before this at `now`.
    package func earliest(_ now: Int64) -> Int64 {
        let since = now &- answered
        return since >= 0
            ? low &+ since &- since / Self.driftParts : low &+ since &+ since / Self.driftParts
    }

    /// The store's time is not after this at `now`, also for an instant before the store told its time.
    package func latest(_ now: Int64) -> Int64 {
        let since = now &- asked
        return since >= 0
            ? high &+ since &+ since / Self.driftParts : high &+ since &- since / Self.driftParts
    }

    /// The last instant of ours at which the store's time is surely before `instant`.
    package func surelyBefore(_ instant: Int64) -> Int64 {
        let left = instant &- high
        return asked &+ left &- abs(left) / (Self.driftParts - 1) &- 1
    }

    /// When the store's time has reached `instant`, on our clock: late rather than early, by the time that
    /// its last answer took.
    package func local(_ instant: Int64) -> Int64 { recentlyAnswered &+ (instant &- recent) }

    /// - Parameter slack: microseconds after which the caller no longer takes the answer.
    package func bounds(_ now: Int64, slack: Int64) -> Bounds {
        guard isKnown else { return Bounds(low: 0, middle: 0, high: 0) }
        let latest = latest(now)
        return Bounds(
            low: earliest(now) &- Self.toleranceMicroseconds, middle: latest &+ Self.promptMicroseconds,
            high: latest &+ slack)
    }

    /// The store has told its time.
    ///
    /// - Parameters:
    ///   - told: as it says itself.
    ///   - asked: before the question was sent, on our clock.
    ///   - answered: after the answer came.
    /// - Returns: by how much its clock has been set since it last spoke; 0 as long as it runs by itself.
    package mutating func observe(_ told: Int64, asked: Int64, answered: Int64) -> Int64 {
        guard isKnown else {
            (low, high) = (told &- skew.high, told &- skew.low)
            (self.asked, self.answered) = (asked, answered)
            (recent, recentlyAnswered) = (low, answered)
            return 0
        }
        guard asked >= noticed else { return 0 }
        let least = told &- latest(answered)
        let most = told &- earliest(asked)
        // A clock that is made faster is followed unnoticed up to the tolerance; the ends have then crossed.
        seen = Skew(low: min(least, most), high: max(least, most))
        var step: Int64 = 0
        if most < skew.low &- Self.toleranceMicroseconds || least > skew.high &+ Self.toleranceMicroseconds {
            step = (least > skew.high ? least : most) &- skew.low
            skew = seen
            steps += 1
            noticed = answered
        } else if skew.low < skew.high {
            let both = Skew(low: max(skew.low, seen.low), high: min(skew.high, seen.high))
            if both.low <= both.high { skew = both }
        }
        (recent, recentlyAnswered) = (told &- skew.high, answered)
        if recent >= self.earliest(answered) { (low, self.answered) = (recent, answered) }
        let last = told &- skew.low
        if last <= self.latest(asked) { (high, self.asked) = (last, asked) }
        return step
    }

    /// Takes over what others say of the skew, where what is known here fits it.
    package mutating func follow(_ agreed: Skew) { skew = agreed }

    /// Our own clock has misled us: the skew is what others say, and of our clock nothing before this answer
    /// counts.
    package mutating func beginAnew(_ agreed: Skew, told: Int64, asked: Int64, answered: Int64) {
        let steps = steps
        self = StoreClock(skew: agreed)
        self.steps = steps
        _ = observe(told, asked: asked, answered: answered)
        noticed = asked
    }
}
