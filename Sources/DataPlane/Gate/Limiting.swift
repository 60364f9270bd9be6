import HTTP2
import HTTPWire
import Keys
import Limits
import Reactor

extension Worker {
    /// Takes the permits of a call, here or in Redis.
    ///
    /// - Returns: whether the caller's connection may have more to read at once.
    func limit(_ slot: Slot<Downstream>, headCount: Int, route: Int, _ key: Slot<ActiveKey>) -> Bool {
        let cost = rows.routes[route].cost
        guard hasStore else {
            // The turn's clock may be older than another worker's last decision for this account.
            let now = MonotonicClock.nowMicroseconds()
            let decision = shared.windows.take(
                account: key.value.accountHash.words, plan: key.value.plan, cost: cost, nowMicroseconds: now,
                hint: &key.value.windowHint)
            countDecision(decision, key: key, isDegraded: false)
            guard decision.isGranted else {
                return refuseLimited(slot, headCount: headCount, route: route, key, decision, now)
            }
            return admit(
                slot, headCount: headCount, route: route, key: key, decision: decision,
                decisionMicroseconds: now)
        }
        return limitRemotely(slot, headCount: headCount, route: route, key)
    }

    func countDecision(_ decision: Decision, key: Slot<ActiveKey>, isDegraded: Bool) {
        let tier = Int(key.value.tier)
        if decision.isGranted {
            metrics.countLimit(isDegraded ? .allowed_degraded : .allowed, tier: tier)
            if decision.remaining[0] * 5 < key.value.plan.windows[0].limit { metrics.nearLimit.add(tier + 1) }
        } else {
            metrics.countLimit(isDegraded ? .limited_degraded : .limited, tier: tier)
        }
    }

    /// The `RateLimit-Policy` and `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers-11).
    ///
    /// - Parameter retryAfter: seconds of `Retry-After` when the call was refused, which `t` then equals.
    func writeRateLimit(
        _ decision: Decision, at decidedMicroseconds: Int64, retryAfter: Int64?,
        _ key: Slot<ActiveKey>, into writer: inout ByteWriter
    ) {
        let line = key.value.policy.policyLine
        writer.append(line.readable)
        writer.append("RateLimit: ")
        writeRemaining(decision, at: decidedMicroseconds, retryAfter: retryAfter, key, into: &writer)
        writer.append("\r\n")
        writeLegacy(decision, at: decidedMicroseconds, retryAfter: retryAfter, key, into: &writer)
    }

    /// The same for the answer that is being put together for a stream of HTTP/2.
    func addRateLimit(_ decision: Decision, at decidedMicroseconds: Int64, _ key: Slot<ActiveKey>) {
        http2.add("ratelimit-policy", key.value.policy.policyLine, key.value.policy.valueRange)
        var start = toDownstream.value.count
        var writer = ByteWriter(toDownstream.value)
        writeRemaining(decision, at: decidedMicroseconds, retryAfter: nil, key, into: &writer)
        toDownstream.value.commit(writer)
        http2.add("ratelimit", toDownstream.value, start..<toDownstream.value.count, isFleeting: true)
        guard key.value.policy.legacyLine.count > 0 else { return }
        start = toDownstream.value.count
        writer = ByteWriter(toDownstream.value)
        writeLegacy(decision, at: decidedMicroseconds, retryAfter: nil, key, into: &writer)
        toDownstream.value.commit(writer)
        http2.add(lines: toDownstream.value.part(start..<toDownstream.value.count))
    }

    private func writeRemaining(
        _ decision: Decision, at decidedMicroseconds: Int64, retryAfter: Int64?,
        _ key: Slot<ActiveKey>, into writer: inout ByteWriter
    ) {
        for index in 0..<decision.count {
            if index > 0 { writer.append(", ") }
            writer.append(key.value.policy.names[index].readable)
            writer.append(decimal: decision.remaining[index])
            writer.append(";t=")
            writer.append(decimal: seconds(decision, index, decidedMicroseconds, retryAfter, key))
        }
    }

    private func writeLegacy(
        _ decision: Decision, at decidedMicroseconds: Int64, retryAfter: Int64?,
        _ key: Slot<ActiveKey>, into writer: inout ByteWriter
    ) {
        let line = key.value.policy.legacyLine
        guard line.count > 0 else { return }
        writer.append(line.readable)
        writer.append("X-RateLimit-Remaining: ")
        writer.append(decimal: decision.remaining[0])
        writer.append("\r\nX-RateLimit-Reset: ")
        writer.append(decimal: seconds(decision, 0, decidedMicroseconds, retryAfter, key))
        writer.append("\r\n")
    }

    private func seconds(
        _ decision: Decision, _ index: Int, _ now: Int64, _ retryAfter: Int64?,
        _ key: Slot<ActiveKey>
    ) -> Int64 {
        if let retryAfter, decision.remaining[index] == 0 || decision.count == 1 { return retryAfter }
        let reset = decision.resetMicroseconds[index]
        if reset == 0 { return key.value.plan.windows[index].lengthSeconds }
        return retryAfterSeconds(nowMicroseconds: now, retryMicroseconds: reset)
    }
}
