import HTTPWire
import Keys
import Limits
import Reactor
import Synchronization
import TLS

/// One worker's records of this turn and the turns before, until a block is full or a little time has passed.
final class AccessLogBuffer {
    private struct State {
        var block = Block.none
        var firstMicroseconds: Int64 = 0
    }

    private let queue: AccessLogQueue
    private let state = Mutable(State())

    init(_ queue: AccessLogQueue) {
        self.queue = queue
    }

    /// A writer with room for a record of this size, or nil when the writer thread is too far behind.
    func begin(atLeast count: Int, nowMicroseconds: Int64) -> ByteWriter? {
        if state.value.block.isAllocated, state.value.block.freeCount < count { flush() }
        if !state.value.block.isAllocated {
            guard queue.waiting.load(ordering: .relaxed) < HardLimits.logBlocks else { return nil }
            state.value.block = Block.allocate(capacity: HardLimits.logBlockBytes)
            state.value.firstMicroseconds = nowMicroseconds
        }
        guard state.value.block.freeCount >= count else { return nil }
        return ByteWriter(state.value.block)
    }

    func commit(_ writer: ByteWriter) { state.value.block.commit(writer) }

    /// Hands over what has waited for a tenth of a second.
    func endTurn(nowMicroseconds: Int64) {
        guard state.value.block.isAllocated, nowMicroseconds - state.value.firstMicroseconds > 100_000
        else { return }
        flush()
    }

    func flush() {
        guard state.value.block.isAllocated, !state.value.block.isEmpty else { return }
        queue.waiting.add(1, ordering: .relaxed)
        queue.post(state.value.block)
        state.value.block = .none
    }
}

extension Worker {
    /// Logs a finished exchange.
    func record(
        _ exchange: Slot<Exchange>, _ slot: Slot<Downstream>, _ key: Slot<ActiveKey>?,
        durationMicroseconds: Int64
    ) {
        countReason(exchange.value.reason)
        let isLogged = isLogged(status: Int(exchange.value.status), exchange.value.reason)
        guard isLogged || exchange.value.serverSpan != 0 else { return }
        var record = AccessRecord()
        record.traceHigh = exchange.value.traceHigh
        record.traceLow = exchange.value.traceLow
        record.durationMicroseconds = durationMicroseconds
        record.upstreamMicroseconds = upstreamTime(exchange)
        record.bytesIn = exchange.value.requestBodyBytes
        record.bytesOut = exchange.value.responseBodyBytes
        if exchange.value.hasDecision, let key {
            record.limit = key.value.plan.windows[0].limit
            record.remaining = exchange.value.decision.remaining[0]
        }
        record.status = exchange.value.status
        record.route = exchange.value.series
        record.upstream = exchange.value.upstream
        record.endpoint = exchange.value.endpoint
        record.reason = exchange.value.reason
        record.method = exchange.value.method
        record.minorVersion = exchange.value.minorVersion
        let head = exchange.value.head
        var texts = RecordTexts(
            block: head, requestIDBlock: head, requestID: exchange.value.requestID,
            path: exchange.value.targetRange)
        if showsAgents(exchange.value.serverSpan) { texts.findAgent() }
        if isLogged { write(record, to: accessLog, slot, key, texts) }
        guard exchange.value.serverSpan != 0 else { return }
        record.serverSpan = exchange.value.serverSpan
        record.clientSpan = exchange.value.endpoint >= 0 ? exchange.value.clientSpan : 0
        record.parentSpan = exchange.value.parentSpan
        record.upstreamOffsetMicroseconds = max(
            0, exchange.value.upstreamStartMicroseconds &- exchange.value.startMicroseconds)
        write(record, to: traceLog, slot, key, texts)
    }

    /// How long a call has waited for its answer's head, or for nothing; -1 when it has had no endpoint.
    private func upstreamTime(_ exchange: Slot<Exchange>) -> Int64 {
        guard exchange.value.endpoint >= 0 else { return -1 }
        let known = exchange.value.upstreamMicroseconds
        return known >= 0 ? known : state.value.nowMicroseconds &- exchange.value.upstreamStartMicroseconds
    }

    /// Counts and logs a call that the gateway answered before it became an exchange.
    ///
    /// - Parameter route: in the plan; -1 for none.
    func recordRefusal(
        _ slot: Slot<Downstream>, _ status: Int, _ reason: Reason, route: Int, key: Slot<ActiveKey>?,
        hasHead: Bool
    ) {
        let duration =
            hasHead && slot.value.arrivedMicroseconds > 0
            ? state.value.nowMicroseconds &- slot.value.arrivedMicroseconds : 0
        let method = hasHead ? requestHead.value.method : .other
        let series = route >= 0 ? rows.routes[route].series : -1
        metrics.countRequest(
            route: Int(series), method: Int(method.rawValue), status: status,
            tier: key.map { Int($0.value.tier) } ?? -1, durationMicroseconds: duration)
        countReason(reason)
        let (trace, isContinued) = takeTrace(hasHead ? plain.value : nil)
        let serverSpan = serverSpan(trace)
        let isLogged = isLogged(status: status, reason)
        guard isLogged || serverSpan != 0 else { return }
        var record = AccessRecord()
        if isContinued || serverSpan != 0 {
            record.traceHigh = trace.high
            record.traceLow = trace.low
        }
        record.durationMicroseconds = duration
        record.status = Int32(status)
        record.route = series
        record.reason = reason
        record.method = method
        record.minorVersion = hasHead ? UInt8(truncatingIfNeeded: requestHead.value.minorVersion) : 1
        let requestID = state.value.requestID
        var texts = RecordTexts(
            block: plain.value, requestIDBlock: requestID, requestID: 0..<requestID.count,
            path: hasHead ? requestHead.value.path : 0..<0)
        if hasHead, showsAgents(serverSpan) { findAgent(&texts) }
        if isLogged { write(record, to: accessLog, slot, key, texts) }
        guard serverSpan != 0 else { return }
        record.serverSpan = serverSpan
        record.parentSpan = trace.span
        write(record, to: traceLog, slot, key, texts)
    }

    /// Whether somebody wants to see what the caller says of itself.
    private func showsAgents(_ serverSpan: UInt64) -> Bool { rows.logsAgents || serverSpan != 0 }

    /// The same as `RecordTexts.findAgent`, in a head that has just been parsed.
    private func findAgent(_ texts: inout RecordTexts) {
        for index in 0..<requestHead.value.fieldCount {
            let field = requestHead.value.fields[index]
            guard case .other = field.id else { continue }
            texts.note(name: field.name, value: field.value)
        }
    }

    /// Whether a call has a line: a share of the good ones, all of the others.
    private func isLogged(status: Int, _ reason: Reason) -> Bool {
        let share = rows.logShare
        if share == ServingPlan.wholeLogShare { return true }
        if share < 0 { return false }
        if status >= 400 || reason != .none { return true }
        return state.value.random.next() % UInt64(ServingPlan.wholeLogShare) < UInt64(share)
    }

    private func countReason(_ reason: Reason) {
        if reason != .none { metrics.reasons.add(Int(reason.rawValue)) }
    }

    private func write(
        _ base: AccessRecord, to log: AccessLogBuffer, _ slot: Slot<Downstream>, _ key: Slot<ActiveKey>?,
        _ texts: RecordTexts
    ) {
        var record = base
        record.wallMicroseconds = state.value.wallMicroseconds
        if slot.value.kind == .stream { record.minorVersion = AccessRecord.http2 }
        if slot.value.session.isOpen { record.tls = slot.value.session.version == .v13 ? 13 : 12 }
        let identity = key?.value.identity ?? Block.none
        let size = AccessRecord.fixedBytes + 64 + texts.count + identity.count
        guard var writer = log.begin(atLeast: size, nowMicroseconds: state.value.nowMicroseconds)
        else {
            metrics.add(log === accessLog ? .accessLogDropped : .spansDropped)
            return
        }
        record.write(into: &writer)
        AccessRecord.put(texts.requestIDBlock.span(texts.requestID), into: &writer)
        // The address is written behind a length that is filled in by its own writer.
        var address = ByteWriter(addressScratch)
        slot.value.peer.write(ipInto: &address)
        AccessRecord.put(address.written, into: &writer)
        AccessRecord.put(texts.block.span(texts.path), into: &writer)
        if let key {
            AccessRecord.put(identity.span(key.value.id), into: &writer)
            AccessRecord.put(identity.span(key.value.account), into: &writer)
            AccessRecord.put(identity.span(key.value.tierRange), into: &writer)
        } else {
            for _ in 0..<3 { AccessRecord.put(identity.span(0..<0), into: &writer) }
        }
        let longest = HardLimits.loggedFieldBytes
        AccessRecord.put(texts.block.span(texts.referrer), atMost: longest, into: &writer)
        AccessRecord.put(texts.block.span(texts.agent), atMost: longest, into: &writer)
        log.commit(writer)
    }
}
