/// The bucket bounds of every latency histogram, in microseconds.
///
/// One set for all keeps dashboards comparable: fine where a proxy lives (100 us to 10 ms), coarse where
/// only an alarm cares. The last bucket is `+Inf`.
package enum LatencyBuckets {
    package static let upperBoundsMicroseconds: [Int64] = [
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 5_000_000, 10_000_000, 30_000_000,
    ]

    /// Buckets including `+Inf`.
    package static let count = 18

    /// Cells that one histogram takes in a `CounterBank`: the buckets, then the sum in microseconds.
    package static let cells = count + 1

    /// The bucket that a duration falls in; plain comparisons because a lazy global costs a check per call.
    @inline(__always)
    static func index(ofMicroseconds duration: Int64) -> Int {
        if duration <= 1_000 {
            if duration <= 250 { return duration <= 100 ? 0 : 1 }
            return duration <= 500 ? 2 : 3
        }
        if duration <= 25_000 {
            if duration <= 5_000 { return duration <= 2_500 ? 4 : 5 }
            return duration <= 10_000 ? 6 : 7
        }
        if duration <= 500_000 {
            if duration <= 100_000 { return duration <= 50_000 ? 8 : 9 }
            return duration <= 250_000 ? 10 : 11
        }
        if duration <= 5_000_000 {
            if duration <= 1_000_000 { return 12 }
            return duration <= 2_500_000 ? 13 : 14
        }
        if duration <= 10_000_000 { return 15 }
        return duration <= 30_000_000 ? 16 : 17
    }
}

extension CounterBank {
    /// Adds one observation to the histogram whose first cell is `base`.
    @inline(__always)
    func observe(histogramAt base: Int, microseconds: Int64) {
        add(base + LatencyBuckets.index(ofMicroseconds: microseconds))
        add(base + LatencyBuckets.count, UInt64(max(0, microseconds)))
    }
}
