import DataPlane
import Reactor

/// The last minutes, so that a page that is opened now has something to draw. Taken by the control loop,
/// where summing the counters costs less than a scrape.
struct History {
    /// Between two samples, about: the loop looks once a second.
    static let intervalMicroseconds: Int64 = 2_000_000
    /// Five minutes.
    static let samplesMax = 150
    /// Samples that make the latest minute.
    private static let minute = 30

    struct Sample {
        /// Unix milliseconds at its end.
        var atMilliseconds: Int64
        var microseconds: Int64
        var requests: UInt64
        /// Answered with 4xx, and with 5xx.
        var refused: UInt64
        var failed: UInt64
        var connections: UInt64
        var p50: Double?
        var p99: Double?
    }

    private(set) var samples: [Sample] = []
    private var totals: [Totals] = []
    private var lastMicroseconds: Int64 = 0

    /// Takes a sample when one is due.
    mutating func tick(_ server: GatewayServer, nowMicroseconds now: Int64) {
        guard now - lastMicroseconds >= Self.intervalMicroseconds else { return }
        let current = Totals(server)
        if let last = totals.last {
            let durations = current.durations.since(last.durations)
            samples.append(
                Sample(
                    atMilliseconds: WallClock.nowMicroseconds() / 1_000,
                    microseconds: now - lastMicroseconds,
                    requests: Self.grown(current.requests, last.requests),
                    refused: Self.grown(current.byClass[3], last.byClass[3]),
                    failed: Self.grown(current.byClass[4], last.byClass[4]),
                    connections: current.connectionsActive, p50: durations.quantile(0.5),
                    p99: durations.quantile(0.99)))
            if samples.count > Self.samplesMax { samples.removeFirst() }
        }
        totals.append(current)
        if totals.count > Self.minute { totals.removeFirst() }
        lastMicroseconds = now
    }

    /// Counts shrink when a reload gives a route's number to another.
    private static func grown(_ now: UInt64, _ before: UInt64) -> UInt64 { now > before ? now - before : 0 }

    /// What stood about a minute before the latest sample.
    var aMinuteAgo: Totals? { totals.first }
}
