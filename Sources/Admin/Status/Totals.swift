import DataPlane

/// What all workers together have counted since the start.
struct Totals {
    /// Answered requests, by the status' first digit.
    var byClass = [UInt64](repeating: 0, count: 5)
    /// What kept calls from an upstream's answer, by the short codes of the access log.
    var reasons = WorkerMetrics.reasons.map { (reason: $0, count: UInt64(0)) }
    var authentication = [UInt64](repeating: 0, count: WorkerMetrics.Authentication.allCases.count)
    var limits = [UInt64](repeating: 0, count: WorkerMetrics.LimitDecision.allCases.count)
    /// How long calls took, by bucket.
    var durations = Latencies()
    var upstreamDurations = Latencies()
    var storeDurations = Latencies()
    var connectionsActive: UInt64 = 0
    var connectionsIdle: UInt64 = 0
    var plaintextRefused: UInt64 = 0

    var requests: UInt64 { byClass.reduce(0, &+) }

    init(_ server: GatewayServer) {
        for worker in server.metrics { add(worker) }
    }

    private mutating func add(_ worker: WorkerMetrics) {
        worker.addRequests(byClass: &byClass)
        for index in reasons.indices { reasons[index].count &+= worker.reasonCount(index) }
        for result in WorkerMetrics.Authentication.allCases {
            authentication[result.rawValue] &+= worker.value(result)
        }
        for decision in WorkerMetrics.LimitDecision.allCases {
            for tier in -1..<worker.shape.tiers {
                limits[decision.rawValue] &+= worker.value(decision, tier: tier)
            }
        }
        for route in -1..<worker.shape.routes {
            durations.add { worker.routeDuration(route: route, cell: $0) }
        }
        for upstream in 0..<worker.shape.upstreams {
            upstreamDurations.add { worker.upstreamDuration(upstream: upstream, cell: $0) }
        }
        for command in 0..<2 { storeDurations.add { worker.storeDuration(command: command, cell: $0) } }
        connectionsActive &+= worker.value(.connectionsActive)
        connectionsIdle &+= worker.value(.connectionsIdle)
        plaintextRefused &+= worker.value(.plaintextWithoutCredential)
        plaintextRefused &+= worker.value(.plaintextWithCredential)
    }
}

/// A histogram of durations that can be asked for its quantiles.
struct Latencies {
    private var buckets = [UInt64](repeating: 0, count: LatencyBuckets.count)

    mutating func add(_ cell: (Int) -> UInt64) {
        for index in buckets.indices { buckets[index] &+= cell(index) }
    }

    /// What was counted after `earlier`.
    func since(_ earlier: Latencies) -> Latencies {
        var result = self
        // Counts shrink when a reload gives a route's number to another.
        for index in buckets.indices { result.buckets[index] -= min(buckets[index], earlier.buckets[index]) }
        return result
    }

    var count: UInt64 { buckets.reduce(0, &+) }

    /// The duration that this share of calls does not exceed, in seconds, interpolated inside its bucket; nil
    /// without any call. What lies above the last bound counts as the last bound.
    func quantile(_ share: Double) -> Double? {
        let total = count
        guard total > 0 else { return nil }
        let wanted = share * Double(total)
        var below = 0.0
        for (index, bucket) in buckets.enumerated() where bucket > 0 {
            let bounds = LatencyBuckets.upperBoundsMicroseconds
            guard index < bounds.count else { break }
            if below + Double(bucket) >= wanted {
                let lower = index == 0 ? 0 : Double(bounds[index - 1])
                let part = (wanted - below) / Double(bucket)
                return (lower + (Double(bounds[index]) - lower) * part) / 1_000_000
            }
            below += Double(bucket)
        }
        return Double(LatencyBuckets.upperBoundsMicroseconds.last ?? 0) / 1_000_000
    }
}
