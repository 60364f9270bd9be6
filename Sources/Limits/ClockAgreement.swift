// When Redis's clock is set, every gateway sees it. When a gateway's own machine stood still, as one that is
// paused by its hypervisor, that gateway sees the same, and nobody else does. So what Redis holds as the skew
// is compared with one's own at every beat, after Redis has told its time: who sees nothing of a step that
// was written down before, knows that there was none, and puts right what is written. Whoever has noticed a
// step of late, or has only just joined, believes what it finds written instead. One gateway alone is never
// contradicted: what it says of the clock only has to fit what it wrote itself.
//
// The first one to see a step goes by it at once, for it cannot know of the others yet. It writes it down and
// calls them, so that a mistake lasts for some round trips, or for two beats where the call is not heard.

/// By which skew the gateways of one Redis go, as one of them sees it.
package struct ClockAgreement: Sendable {
    package enum Move: Sendable, Equatable {
        case none
        /// Ours is to be written down; the others are called when it is not what they go by.
        case tell(StoreClock.Skew, calling: Bool)
        /// What is written is as good as what we know, or better.
        case follow(StoreClock.Skew)
        /// Our own clock has misled us.
        case yield(StoreClock.Skew)
    }

    /// Whoever has gone by one skew for so long has compared it with the others'.
    package static let settlingMicroseconds: Int64 = 3_000_000
    /// Who is contradicted for so long, whenever it puts right what is written, gives in: otherwise two who
    /// have gone by different skews would insist for ever.
    private static let patienceMicroseconds: Int64 = 10_000_000

    /// What Redis holds of ours, or what we hold of Redis's.
    private var told = StoreClock.Skew.none
    /// Of the steps that were noticed, those that have been compared.
    private var steps = 0
    /// When our skew has become another, on our clock; nil before the first look.
    private var changed: Int64?
    /// Since when ours is written over others', and has not been met with.
    private var insisting: Int64?
    /// When it was last written over others'.
    private var insisted: Int64 = 0

    package init() {}

    /// Whether there is something to compare before the next beat.
    package func isNews(_ clock: StoreClock) -> Bool { clock.steps != steps || clock.skew != told }

    /// - Parameters:
    ///   - written: what Redis held before it told its time; nil for nothing.
    ///   - clock: with what it told.
    ///   - now: on our clock.
    package func move(written: StoreClock.Skew?, _ clock: StoreClock, now: Int64) -> Move {
        let ours = clock.skew
        let isStep = clock.steps != steps
        guard let written else { return ours == .none ? .none : .tell(ours, calling: isStep) }
        if written == ours { return .none }
        if written.meets(ours) {
            if written.low >= ours.low, written.high <= ours.high { return .follow(written) }
            // Whoever joins goes by what is written, and could not know it better by itself.
            let isWider = written.low <= ours.low && written.high >= ours.high
            return ours == told && !isWider ? .none : .tell(ours, calling: false)
        }
        if isStep { return .tell(ours, calling: true) }
        if written.meets(clock.seen) { return .follow(written) }
        let isSettled = changed.map { now &- $0 >= Self.settlingMicroseconds } ?? false
        let isPatient = insisting.map { now &- $0 < Self.patienceMicroseconds } ?? true
        return isSettled && isPatient ? .tell(ours, calling: true) : .yield(written)
    }

    /// The move has been made: until then everything is still to be compared.
    ///
    /// - Parameter clock: of which it was made, whatever has been noticed since.
    package mutating func made(_ move: Move, _ clock: StoreClock, now: Int64) {
        let isStep = clock.steps != steps
        steps = clock.steps
        if isStep || changed == nil { changed = now }
        switch move {
        case .none: told = clock.skew
        case .tell(let skew, let calling):
            told = skew
            if calling, !isStep {
                insisting = insisting ?? now
                insisted = now
                return
            }
        case .follow(let skew): told = skew
        case .yield(let skew): (told, changed) = (skew, now)
        }
        // What has just been written is found again before the others have seen it.
        if case .none = move, now &- insisted < Self.settlingMicroseconds { return }
        insisting = nil
    }
}
