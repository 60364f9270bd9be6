import HTTP2

/// How much a connection may ask of us without getting anything done: a bucket of points that frames without
/// a call behind them empty, and that calls, bodies and time fill again.
///
/// Resets, settings, pings, empty frames and window updates are all legal one by one; thousands of them are
/// an attack (CVE-2019-9511 to 9518, CVE-2023-44487).
struct FrameBudget {
    /// 200 resets, or 400 SETTINGS, at once: far above what any client needs.
    static let pointsMax: Int32 = 2_000
    static let pointsPerSecond: Int64 = 100
    /// What a call that is answered gives back.
    static let pointsPerAnswer: Int32 = 20
    /// What a frame of an answer's body gives back: some callers open the windows of stream and connection
    /// for every message in it.
    static let pointsPerBodyFrame: Int32 = 10
    /// Bytes of such a frame that the caller's window has cut short; a smaller one gives nothing, or windows
    /// of one byte would pay for themselves.
    static let cutFrameBytesMin = 1_024
    static let pointsPerReset: Int32 = 10
    /// What a reset gives back that ended a call as deadlines and leaving users do: after an answer had
    /// begun, or after a time in which 128 streams are no more work than calls are.
    static let pointsPerFairReset: Int32 = 9
    static let fairResetMicroseconds: Int64 = 100_000

    private var points = FrameBudget.pointsMax
    private var filledMicroseconds: Int64 = 0

    var isExhausted: Bool { points < 0 }

    mutating func spend(_ kind: HTTP2FrameKind, length: Int, nowMicroseconds: Int64) {
        if filledMicroseconds == 0 { filledMicroseconds = nowMicroseconds }
        let elapsed = nowMicroseconds &- filledMicroseconds
        if elapsed >= 100_000 {
            filledMicroseconds = nowMicroseconds
            earn(Int32(truncatingIfNeeded: min(elapsed, 60_000_000) / 1_000 * Self.pointsPerSecond / 1_000))
        }
        switch kind {
        case .data: points -= length == 0 ? 2 : 1
        case .resetStream: points -= Self.pointsPerReset
        case .settings: points -= 5
        case .continuation: points -= length < 1_024 ? 5 : 1
        case .ping: points -= 4
        case .headers, .goAway, .pushPromise: points -= 1
        case .priority, .windowUpdate, .unknown: points -= 1
        }
    }

    mutating func earn(_ amount: Int32) { points = min(Self.pointsMax, points + amount) }
}
