import Configuration
import HTTP2
import HTTPWire
import Keys
import Limits
import Reactor
import TLS

// The order of a call: route, authenticate, scope, limit, forward. Each step either answers, waits, or hands
// on.

extension Worker {
    /// What the router says of the request being read.
    enum Routing {
        case route(Int)
        case noRoute
        case otherMethods(entry: Int)
        /// Some servers see another route than others, and why.
        case twoRoutes(StaticString)
    }

    /// Takes a complete head through the gate.
    ///
    /// - Returns: whether the connection may have more to read at once.
    func begin(_ slot: Slot<Downstream>, headCount: Int) -> Bool {
        cancelTimer(slot)
        makeRequestID(slot, trusting: true)
        slot.value.arrivedMicroseconds = state.value.nowMicroseconds
        // What is wrong already need not reach an upstream, nor cost a permit.
        if slot.value.kind == .http1, case .chunked = requestHead.value.body,
            let problem = ChunkDecoder.problem(in: plain.value.readable, from: headCount)
        {
            refuseMalformed(slot, 400, problem)
            return false
        }
        if rows.strictHost, !coversHost(slot) {
            return refuse(slot, .misdirected, headCount: headCount)
        }
        if slot.value.kind == .stream, slot.value.stream.requestBody == .tunnel,
            !requestHead.value.wantsUpgrade
        {
            refuseMalformed(slot, .protocolNotTunnelled)
            return false
        }
        if requestHead.value.wantsUpgrade, hasSeveralKeys() {
            refuseMalformed(slot, 400, "more than one Sec-WebSocket-Key")
            return false
        }
        let block = plain.value
        target.value.clear()
        if case .asterisk = requestHead.value.targetForm {
            target.value.append(byte: 0x2A)
        } else {
            var writer = ByteWriter(target.value)
            if let problem = TargetNormaliser.normalise(
                block.readable, requestHead.value.path, into: &writer)
            {
                refuseMalformed(slot, 400, problem)
                return false
            }
            target.value.commit(writer)
        }
        let pathCount = target.value.count
        target.value.append(block.span(requestHead.value.query))
        let routing = route(pathCount)
        if case .route(let number) = routing, rows.routes[number].isPublic {
            if isTooLarge(number) { return refuse(slot, .tooLarge, headCount: headCount, route: number) }
            if requestHead.value.maxForwards == 0 {
                return answerAsLast(slot, headCount: headCount, route: number, key: nil)
            }
            return admit(slot, headCount: headCount, route: number, key: nil)
        }
        switch authenticate(slot) {
        case .parked:
            slot.value.request = .awaitingKey
            return false
        case .refused(let reason):
            return refuseCredential(slot, reason, headCount: headCount)
        case .key(let key):
            return authorise(slot, headCount: headCount, routing, key)
        }
    }

    private func route(_ pathCount: Int) -> Routing {
        let match = rows.router.match(target.value.span(0..<pathCount))
        if let why = rows.router.ambiguity(match, &target.value, pathCount: pathCount) {
            return .twoRoutes(why)
        }
        guard let entry = match else { return .noRoute }
        let number = rows.router.entries[entry].routes[Int(requestHead.value.method.rawValue)]
        return number >= 0 ? .route(Int(number)) : .otherMethods(entry: entry)
    }

    /// A valid key: is the route there, may the key use it, has the account a permit left?
    private func authorise(
        _ slot: Slot<Downstream>, headCount: Int, _ routing: Routing, _ key: Slot<ActiveKey>
    ) -> Bool {
        if !slot.value.hasSeenLimits {
            metrics.authentication.add(WorkerMetrics.Authentication.ok.rawValue)
        }
        if case .route(let number) = routing, mayUse(number, key) {
            return limit(slot, headCount: headCount, route: number, key)
        }
        // Only here: others would learn of routes from it.
        if case .twoRoutes(let why) = routing {
            refuseMalformed(slot, 400, why)
            return false
        }
        if awaitLimits(slot, key) { return false }
        switch routing {
        case .noRoute, .twoRoutes:
            return refuse(slot, .noRoute, headCount: headCount, key: key)
        case .otherMethods(let entry):
            return refuse(slot, .methodNotAllowed, headCount: headCount, key: key, entry: entry)
        case .route(let number):
            guard key.value.grants.contains(rows.routes[number].scopes) else {
                return refuse(slot, .scopeMissing, headCount: headCount, route: number, key: key)
            }
            if isTooLarge(number) {
                return refuse(slot, .tooLarge, headCount: headCount, route: number, key: key)
            }
            return answerAsLast(slot, headCount: headCount, route: number, key: key)
        }
    }

    private func mayUse(_ route: Int, _ key: Slot<ActiveKey>) -> Bool {
        key.value.grants.contains(rows.routes[route].scopes) && !isTooLarge(route)
            && requestHead.value.maxForwards != 0
    }

    /// Whether the body that the head announces is over the route's limit: refused before it costs a permit.
    private func isTooLarge(_ route: Int) -> Bool {
        guard case .length(let count) = requestHead.value.body else { return false }
        return count > rows.routes[route].bodyBytes
    }

    /// Whether the certificate that SNI chose covers the host the caller asks for.
    private func coversHost(_ slot: Slot<Downstream>) -> Bool {
        let block = plain.value
        let name = HostName.withoutPort(block.readable, requestHead.value.host)
        return slot.value.session.certificateCovers(host: String(copying: block.span(name)))
    }

    /// Who calls: the peer, or whom a trusted peer names last.
    func callerAddress(_ slot: Slot<Downstream>) -> SocketAddress {
        guard isTrusted(slot.value.peer) else { return slot.value.peer }
        var address = slot.value.peer
        let block = plain.value
        for index in stride(from: requestHead.value.fieldCount - 1, through: 0, by: -1)
        where requestHead.value.fields[index].id == .xForwardedFor {
            let text = String(copying: block.span(requestHead.value.fields[index].value))
            for part in text.split(separator: ",").reversed() {
                let trimmed = String(part.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
                guard let named = SocketAddress(ip: trimmed, port: 0) else { return address }
                address = named
                if !isTrusted(named) { return address }
            }
        }
        return address
    }
}

extension String {
    /// For slow paths only.
    package init(copying bytes: Span<UInt8>) {
        var copy: [UInt8] = []
        copy.reserveCapacity(bytes.count)
        for index in 0..<bytes.count { copy.append(bytes[index]) }
        self.init(decoding: copy, as: UTF8.self)
    }
}
