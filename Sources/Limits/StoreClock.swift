// The store's clock as seen from here. Time that decides is Redis's own, but a wall clock can be set, and
// then a window would be let go early, or not for hours. So the store's time is known twice: as it says it
// is, and as it must be by our monotonic clock since it last spoke. While both agree, what it says holds.
// When they do not, its clock has been set: the difference is subtracted from then on, and time goes on as
// if nothing had happened, within the time that one answer took.

/// Maps the monotonic clock of this machine to the clock of the store.
package struct StoreClock: Sendable {
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

    /// The store's time lay between these at `answered` and at `asked`, on our clock.
    private var low: Int64 = 0
    private var high: Int64 = 0
    private var asked: Int64 = 0
    private var answered: Int64 = 0

    package init() {}

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
        return asked &+ left &- left / Self.driftParts &- 1
    }

    /// When the store's time has reached `instant`, on our clock: late rather than early, by the time that
    /// its last answer took.
    package func local(_ instant: Int64) -> Int64 { answered &+ (instant &- low) }

    /// - Parameter slack: microseconds after which the caller no longer takes the answer.
    package func bounds(_ now: Int64, slack: Int64) -> Bounds {
        guard isKnown else { return Bounds(low: 0, middle: 0, high: 0) }
        let latest = latest(now)
        return Bounds(
            low: earliest(now), middle: latest &+ Self.promptMicroseconds, high: latest &+ slack)
    }

    /// The store has told its time, less the skew known so far.
    ///
    /// - Parameters:
    ///   - asked: before the question was sent, on our clock.
    ///   - answered: after the answer came.
    /// - Returns: by how much its clock has been set since it last spoke; 0 as long as it runs by itself.
    package mutating func observe(_ time: Int64, asked: Int64, answered: Int64) -> Int64 {
        guard isKnown else {
            (low, high) = (time, time)
            (self.asked, self.answered) = (asked, answered)
            return 0
        }
        let earliest = earliest(asked)
        let latest = latest(answered)
        var step: Int64 = 0
        if time < earliest &- Self.toleranceMicroseconds || time > latest &+ Self.toleranceMicroseconds {
            // What it says from now on is taken for the latest that it can be: written down late, not early.
            step = time &- latest
            (low, high) = (earliest, latest)
        } else {
            (low, high) = (time, time)
        }
        (self.asked, self.answered) = (asked, answered)
        return step
    }
}
