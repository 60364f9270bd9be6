/// So much a second, with room for a burst: a token bucket for what is bounded, not promised.
struct Allowance {
    private let perSecond: Int64
    private let burstMicroseconds: Int64
    /// When the allowance was last empty, moved on by what was taken since.
    private var emptyAtMicroseconds: Int64 = 0

    /// - Parameters:
    ///   - perSecond: 1 to 1,000,000.
    ///   - burst: at least 1.
    init(perSecond: Int64, burst: Int64) {
        self.perSecond = perSecond
        burstMicroseconds = burst * 1_000_000 / perSecond
    }

    /// Takes one, if there is one.
    mutating func take(nowMicroseconds now: Int64) -> Bool {
        let empty = max(emptyAtMicroseconds, now &- burstMicroseconds)
        let next = empty &+ 1_000_000 / perSecond
        guard next <= now else { return false }
        emptyAtMicroseconds = next
        return true
    }
}
