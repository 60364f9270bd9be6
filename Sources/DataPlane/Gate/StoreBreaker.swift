/// Keeps callers off a store that comes and goes: after it was lost it has to answer a few questions that
/// nobody waits for before calls depend on it again, and the more of them the oftener it was lost lately.
struct StoreBreaker {
    /// Losses further apart have nothing to do with each other.
    static let memoryMicroseconds: Int64 = 10_000_000
    /// Between two questions.
    static let probeMicroseconds: Int64 = 50_000
    static let proofsMax = 8

    /// Answers that are still wanted.
    private(set) var proofsLeft = 0
    private var lossesLately = 0
    private var lastLossMicroseconds = Int64.min / 2
    private var nextProbeMicroseconds: Int64 = 0

    var isProbing: Bool { proofsLeft > 0 }

    /// The store was lost.
    mutating func trip(nowMicroseconds now: Int64) {
        if now &- lastLossMicroseconds > Self.memoryMicroseconds { lossesLately = 0 }
        lossesLately = min(lossesLately + 1, 8)
        lastLossMicroseconds = now
        proofsLeft = min(Self.proofsMax, 1 << (lossesLately - 1))
        nextProbeMicroseconds = 0
    }

    /// Whether a question is to be asked now.
    mutating func mayProbe(nowMicroseconds now: Int64) -> Bool {
        guard isProbing, now >= nextProbeMicroseconds else { return false }
        nextProbeMicroseconds = now &+ Self.probeMicroseconds
        return true
    }

    /// It was answered in time.
    mutating func proved() { proofsLeft = max(0, proofsLeft - 1) }
}
