/// The promise of a sliding window, checked from outside on what was admitted.
package enum TrailingWindow {
    /// The most permits in any trailing window of `length` microseconds.
    ///
    /// - Parameter admitted: in the order of their instants.
    package static func worst(_ admitted: [(at: Int64, cost: Int64)], _ length: Int64) -> Int64 {
        var worst: Int64 = 0
        var first = 0
        var sum: Int64 = 0
        for item in admitted {
            sum += item.cost
            while admitted[first].at < item.at - length {
                sum -= admitted[first].cost
                first += 1
            }
            worst = max(worst, sum)
        }
        return worst
    }
}
