// The exact sliding window: a log of when permits were spent. A permit spent at t counts until more than W
// has passed, so request k is admitted only if t(k) - t(k-N) > W, and any N+1 admissions span more than W.
// Strictly more, and in microseconds: with `>=` a closed window of W could hold N+1.
//
// The log is a ring of runs (instant, permits). Up to `exactMaximum` permits every instant has its own run;
// above, runs within W/4096 share one whose instant is the latest of them. Later is the safe side: it frees
// later. The ring doubles until it holds what its limit asks for and then stays; it never exceeds `runsMax`,
// whatever is written down.

/// The log of one window of one account.
struct SlidingWindow {
    /// Up to this many permits the log is exact to the microsecond.
    static let exactMaximum: Int64 = 4_096
    /// Most runs. A limit by itself needs at most 8,193: 4,096 exact ones, or those that a window touches.
    /// The rest is for limits that changed, and for what others granted.
    static let runsMax = 16_384

    private struct Run {
        var atMicroseconds: Int64
        var permits: Int64
    }

    private var runs: [Run]
    private var first = 0
    private var count = 0
    /// Permits in the log.
    private(set) var used: Int64 = 0
    let lengthMicroseconds: Int64

    init(lengthMicroseconds: Int64) {
        self.lengthMicroseconds = lengthMicroseconds
        runs = [Run](repeating: Run(atMicroseconds: 0, permits: 0), count: 8)
    }

    var isEmpty: Bool { count == 0 }

    /// Instants with the permits spent then, the oldest first.
    var contents: [(atMicroseconds: Int64, permits: Int64)] {
        (0..<count).map { number in
            let run = runs[(first &+ number) & (runs.count &- 1)]
            return (run.atMicroseconds, run.permits)
        }
    }

    /// When the oldest permit stops counting; 0 when there is none.
    var resetMicroseconds: Int64 {
        count == 0 ? 0 : runs[first].atMicroseconds &+ lengthMicroseconds &+ 1
    }

    /// Drops what no longer counts at `now`.
    mutating func prune(_ now: Int64) {
        let horizon = now &- lengthMicroseconds
        while count > 0, runs[first].atMicroseconds < horizon {
            used &-= runs[first].permits
            first = (first &+ 1) & (runs.count &- 1)
            count &-= 1
        }
    }

    /// Writes permits down. The caller has pruned, and `now` is not before any earlier one.
    mutating func spend(_ permits: Int64, limit: Int64, at now: Int64) {
        guard permits > 0 else { return }
        used &+= permits
        if count > 0 {
            let last = (first &+ count &- 1) & (runs.count &- 1)
            let grain = limit > Self.exactMaximum ? max(1, lengthMicroseconds / Self.exactMaximum) : 1
            if count == Self.runsMax || runs[last].atMicroseconds / grain == now / grain {
                runs[last].atMicroseconds = now
                runs[last].permits &+= permits
                return
            }
        }
        if count == runs.count { grow() }
        runs[(first &+ count) & (runs.count &- 1)] = Run(atMicroseconds: now, permits: permits)
        count &+= 1
    }

    /// The first instant at which `cost` permits fit under `limit` if nobody else spends; 0 when they never
    /// do.
    func retryMicroseconds(cost: Int64, limit: Int64) -> Int64 {
        guard cost <= limit else { return 0 }
        var excess = used &+ cost &- limit
        var index = first
        for _ in 0..<count {
            excess &-= runs[index].permits
            if excess <= 0 { return runs[index].atMicroseconds &+ lengthMicroseconds &+ 1 }
            index = (index &+ 1) & (runs.count &- 1)
        }
        return 0
    }

    /// What is in the log, in at most so many entries: neighbours share one, at the latest of their instants.
    func entries(atMost most: Int) -> [SpentLog.Entry] {
        let group = max(1, (count + most - 1) / most)
        var entries: [SpentLog.Entry] = []
        for number in 0..<count {
            let run = runs[(first + number) & (runs.count - 1)]
            if number % group == 0 { entries.append(SpentLog.Entry(at: run.atMicroseconds, permits: 0)) }
            entries[entries.count - 1].at = run.atMicroseconds
            entries[entries.count - 1].permits += run.permits
        }
        return entries
    }

    /// The length stays a power of two, so that positions wrap with a mask.
    private mutating func grow() {
        var larger = [Run](repeating: Run(atMicroseconds: 0, permits: 0), count: runs.count * 2)
        for index in 0..<count { larger[index] = runs[(first + index) & (runs.count - 1)] }
        runs = larger
        first = 0
    }
}
