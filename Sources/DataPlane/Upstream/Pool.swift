import Configuration
import HTTPWire
import Keys
import Reactor
import TLS

// The idle connections of an endpoint form a list, last used first: the warm ones are used, the others grow
// old and are closed. What breaks is retried only where nothing can have reached the application.

extension Worker {
    // MARK: Choice

    /// The endpoint for a call, or nil when none may be used. One whose last calls failed is still better
    /// than none: those failures may have been the calls'.
    func chooseEndpoint(_ exchange: Slot<Exchange>) -> Int? {
        choose(exchange, sparing: true) ?? choose(exchange, sparing: false)
    }

    /// - Parameter sparing: whether endpoints are left out whose last calls failed.
    private func choose(_ exchange: Slot<Exchange>, sparing: Bool) -> Int? {
        let number = Int(exchange.value.upstream)
        let count = upstreams[number].endpointCount
        if count <= 1 {
            guard count == 1 else { return nil }
            let only = endpoint(number, 0)
            return isUsable(only, sparing: false) ? only : nil
        }
        let start: Int
        switch upstreams[number].balance {
        case .roundRobin:
            upstreams[number].turn = (upstreams[number].turn + 1) % count
            start = upstreams[number].turn
        case .hash:
            start = hashedChoice(exchange, count, sparing)
        case .leastOutstanding:
            return leastOutstanding(number, count, sparing, avoiding: Int(exchange.value.endpoint))
        }
        // A retry goes elsewhere, and so does a call whose endpoint is out.
        for step in 0..<count {
            let endpoint = endpoint(number, (start + step) % count)
            if isUsable(endpoint, sparing: sparing), endpoint != Int(exchange.value.endpoint) {
                return endpoint
            }
        }
        let previous = Int(exchange.value.endpoint)
        return previous >= 0 && isUsable(previous, sparing: sparing) ? previous : nil
    }

    /// The number of an upstream's endpoint.
    private func endpoint(_ upstream: Int, _ place: Int) -> Int { upstreams[upstream].member(place) }

    /// Two at random, the less busy of them (Mitzenmacher 2001); all in turn when neither may be used.
    private func leastOutstanding(
        _ upstream: Int, _ count: Int, _ sparing: Bool, avoiding previous: Int
    ) -> Int? {
        let random = state.value.random.next()
        let place = Int(random % UInt64(count))
        let one = endpoint(upstream, place)
        let other = endpoint(upstream, (place + 1 + Int((random >> 32) % UInt64(count - 1))) % count)
        let oneIsGood = isUsable(one, sparing: sparing) && one != previous
        let otherIsGood = isUsable(other, sparing: sparing) && other != previous
        if oneIsGood, otherIsGood {
            return endpoints[other].outstanding < endpoints[one].outstanding ? other : one
        }
        if oneIsGood { return one }
        if otherIsGood { return other }
        for place in 0..<count {
            let endpoint = endpoint(upstream, place)
            if isUsable(endpoint, sparing: sparing), endpoint != previous { return endpoint }
        }
        return previous >= 0 && isUsable(previous, sparing: sparing) ? previous : nil
    }

    /// Rendezvous hashing over accounts: an endpoint that goes moves only its own accounts, and every gateway
    /// chooses alike.
    private func hashedChoice(_ exchange: Slot<Exchange>, _ count: Int, _ sparing: Bool) -> Int {
        guard exchange.value.key >= 0, let key = keys.occupant(at: Int(exchange.value.key)) else {
            return Int(state.value.random.next() % UInt64(count))
        }
        let number = Int(exchange.value.upstream)
        var best = 0
        var bestScore: UInt64 = 0
        for index in 0..<count where isUsable(endpoint(number, index), sparing: sparing) {
            var mixer = FastRandom(
                seed: key.value.balanceHash ^ endpoints[endpoint(number, index)].nameHash)
            let score = mixer.next()
            if score >= bestScore {
                bestScore = score
                best = index
            }
        }
        return best
    }

    private func isUsable(_ endpoint: Int, sparing: Bool) -> Bool {
        let found = endpoints[endpoint]
        return found.isHealthy && (found.isUnixSocket || found.address != nil)
            && (!sparing || found.ejectedUntilMicroseconds == 0
                || found.ejectedUntilMicroseconds <= state.value.nowMicroseconds)
    }

    // MARK: Addresses

    /// Takes what an endpoint's name stands for now.
    ///
    /// - Parameter retired: addresses that it has not stood for in a while. Warm connections to them would
    ///   keep calls there for as long as there are calls.
    func adopt(_ addresses: [SocketAddress], of endpoint: Int, retired: [SocketAddress]) {
        snapshot.value.addresses[endpoint] = addresses
        let place = endpoints[endpoint].address.flatMap { addresses.firstIndex(of: $0) } ?? 0
        endpoints[endpoint].address = addresses[place]
        endpoints[endpoint].addressPlace = UInt8(truncatingIfNeeded: place)
        if retired.isEmpty { return }
        for index in 0..<upstreamConnections.highWater {
            guard let connection = upstreamConnections.occupant(at: index), !connection.value.isDead,
                Int(connection.value.endpoint) == endpoint, connection.value.kind != .stream,
                connection.value.address.map(retired.contains) == true
            else { continue }
            connection.value.isOutdated = true
            if connection.value.kind == .http2 {
                connection.value.multiplex.takesNoMore = true
                streamCountChanged(connection)
            } else if connection.value.phase == .idle {
                endIdle(connection)
            }
        }
    }

    /// An address could not be reached: its name may stand for others. Calls that failed together leave it
    /// once.
    func leaveAddress(of connection: Slot<UpstreamConnection>) {
        let endpoint = Int(connection.value.endpoint)
        if connection.value.address == endpoints[endpoint].address { goToNextAddress(endpoint) }
    }

    private func goToNextAddress(_ endpoint: Int) {
        let count = snapshot.value.addresses[endpoint].count
        guard count > 1 else { return }
        let place = (Int(endpoints[endpoint].addressPlace) + 1) % count
        endpoints[endpoint].addressPlace = UInt8(truncatingIfNeeded: place)
        endpoints[endpoint].address = snapshot.value.addresses[endpoint][place]
    }

    // MARK: Idle connections

    func park(_ connection: Slot<UpstreamConnection>) {
        let endpoint = Int(connection.value.endpoint)
        let upstream = Int(endpoints[endpoint].upstream)
        endpoints[endpoint].outstanding -= 1
        guard !state.value.isDraining, endpoints[endpoint].idleCount < upstreams[upstream].idleMax,
            connection.value.generation >= endpoints[endpoint].validFrom, !connection.value.isOutdated
        else {
            connection.value.phase = .idle
            destroy(connection)
            return
        }
        connection.value.phase = .idle
        connection.value.isReused = true
        connection.value.previousIdle = .none
        connection.value.nextIdle = endpoints[endpoint].firstIdle
        if let next = upstreamConnections.lookup(endpoints[endpoint].firstIdle) {
            next.value.previousIdle = connection.reference
        } else {
            endpoints[endpoint].lastIdle = connection.reference
        }
        endpoints[endpoint].firstIdle = connection.reference
        endpoints[endpoint].idleCount += 1
        setTimer(connection, after: upstreams[upstream].idleTimeoutMicroseconds)
    }

    func unpark(_ connection: Slot<UpstreamConnection>) {
        let endpoint = Int(connection.value.endpoint)
        let next = connection.value.nextIdle
        let previous = connection.value.previousIdle
        if let slot = upstreamConnections.lookup(previous) {
            slot.value.nextIdle = next
        } else {
            endpoints[endpoint].firstIdle = next
        }
        if let slot = upstreamConnections.lookup(next) {
            slot.value.previousIdle = previous
        } else {
            endpoints[endpoint].lastIdle = previous
        }
        connection.value.nextIdle = .none
        connection.value.previousIdle = .none
        endpoints[endpoint].idleCount -= 1
    }

    /// Closes every idle connection to an endpoint, and those that calls share once they have ended.
    func closeIdle(_ endpoint: Int) {
        var reference = endpoints[endpoint].firstMultiplexed
        while let connection = upstreamConnections.lookup(reference) {
            reference = connection.value.multiplex.next
            connection.value.multiplex.takesNoMore = true
            streamCountChanged(connection)
        }
        while let connection = upstreamConnections.lookup(endpoints[endpoint].firstIdle) {
            endIdle(connection)
        }
    }

    /// Closes a connection that is idle.
    func endIdle(_ connection: Slot<UpstreamConnection>) {
        unpark(connection)
        destroy(connection)
    }

    // MARK: Ends

    func expireUpstream(_ connection: Slot<UpstreamConnection>) {
        if connection.value.kind == .http2, connection.value.phase == .busy {
            retireMultiplexed(connection)
            return
        }
        switch connection.value.phase {
        case .idle: endIdle(connection)
        case .connecting, .handshaking: upstreamBroke(connection, .connectFailed)
        case .busy:
            guard let exchange = exchanges.lookup(connection.value.exchange), !exchange.value.isDead else {
                closeUpstream(connection)
                return
            }
            // It has taken all that the caller has sent so far: the time is the caller's, whose timer runs.
            if exchange.value.phase == .awaitingResponse, !exchange.value.requestIsSent,
                !exchange.value.isGRPC, connection.value.output.isEmpty
            {
                awaitUpstream(connection, exchange)
                return
            }
            doubt(connection)
            if blamesEndpoint(exchange) { noteFailure(Int(connection.value.endpoint)) }
            failExchange(exchange, .upstreamTimeout)
        }
    }

    /// Whether a silence speaks against the endpoint: not that of a tunnel, nor while a gRPC call still
    /// sends, nor one that its caller's own deadline has made too short for anybody, nor that of a begun
    /// answer of which nobody knows whether more is to come. Callers would have endpoints left out for all.
    private func blamesEndpoint(_ exchange: Slot<Exchange>) -> Bool {
        if exchange.value.isTunnel || exchange.value.isGRPC && !exchange.value.requestIsSent { return false }
        if exchange.value.phase == .streaming {
            guard case .length = exchange.value.responseFraming else { return false }
        }
        let now = state.value.nowMicroseconds
        return exchange.value.deadlineMicroseconds == 0 || now < exchange.value.deadlineMicroseconds
            || now &- exchange.value.upstreamStartMicroseconds >= HardLimits.pingMicroseconds
    }

    /// The connection cannot go on. Its call is retried where that is safe, answered, or cut.
    func upstreamBroke(_ connection: Slot<UpstreamConnection>, _ reason: Reason) {
        if connection.value.kind == .http2 {
            multiplexedBroke(connection, reason)
            return
        }
        if reason == .connectFailed, connection.value.kind == .http1 { leaveAddress(of: connection) }
        guard let exchange = exchanges.lookup(connection.value.exchange), !exchange.value.isDead else {
            closeUpstream(connection)
            return
        }
        upstreamFailed(exchange, connection, reason)
    }

    func upstreamFailed(
        _ exchange: Slot<Exchange>, _ connection: Slot<UpstreamConnection>, _ reason: Reason
    ) {
        let neverConnected = connection.value.phase == .connecting || connection.value.phase == .handshaking
        // A connection of HTTP/2 may break because of what was said of another call.
        let isBroken =
            reason == .upstreamClosed || reason == .upstreamNonsense && connection.value.kind == .stream
        let closedSilently =
            isBroken && connection.value.isReused && !connection.value.hasAnswered
            && exchange.value.method.isIdempotent && exchange.value.requestFraming == .none
        let endpoint = Int(connection.value.endpoint)
        // A pooled connection that had died of age says nothing against its endpoint.
        if !closedSilently || reason == .upstreamNonsense, !connection.value.stream.isBlameless {
            noteFailure(endpoint)
        }
        dropUpstream(of: exchange)
        if neverConnected { metrics.add(.upstreamConnectFailures) }
        if neverConnected || closedSilently, mayRetry(exchange) {
            retry(exchange)
        } else {
            let isCut = exchange.value.isTunnel && reason == .upstreamClosed
            failExchange(exchange, isCut ? .tunnelCut : reason)
        }
    }

    /// No socket could be made at all.
    func connectFailed(_ exchange: Slot<Exchange>, endpoint: Int, _ error: SystemError) {
        metrics.add(.upstreamConnectFailures)
        dropUpstream(of: exchange)
        // What this machine lacks says nothing against an endpoint, and another one would not help.
        if error.isShortage {
            shared.report(.error, "cannot connect to upstreams: \(error.reason)", every: 60)
            failExchange(exchange, .overloaded, retryAfter: 1)
            return
        }
        goToNextAddress(endpoint)
        noteFailure(endpoint)
        if mayRetry(exchange) { retry(exchange) } else { failExchange(exchange, .connectFailed) }
    }

    func mayRetry(_ exchange: Slot<Exchange>) -> Bool {
        let upstream = Int(exchange.value.upstream)
        guard Int(exchange.value.attempts) <= upstreams[upstream].retries,
            upstreams[upstream].retryBudget >= HardLimits.retryShare
        else { return false }
        upstreams[upstream].retryBudget -= HardLimits.retryShare
        return true
    }

    func retry(_ exchange: Slot<Exchange>) {
        metrics.add(.upstreamRetries)
        startUpstream(exchange)
    }

    /// Takes a call's connection away from it and closes it.
    func dropUpstream(of exchange: Slot<Exchange>) {
        let reference = exchange.value.upstreamConnection
        exchange.value.upstreamConnection = .none
        guard let connection = upstreamConnections.lookup(reference), !connection.value.isDead else {
            return
        }
        closeUpstream(connection)
    }

    /// Closes a connection that is not idle.
    func closeUpstream(_ connection: Slot<UpstreamConnection>) {
        guard !connection.value.isDead else { return }
        if connection.value.kind != .http2 { endpoints[Int(connection.value.endpoint)].outstanding -= 1 }
        destroy(connection)
    }

    func destroy(_ connection: Slot<UpstreamConnection>) {
        connection.value.isDead = true
        connection.value.exchange = .none
        cancelTimer(connection)
        if connection.value.kind == .stream {
            endUpstreamStream(connection)
        } else {
            endpoints[Int(connection.value.endpoint)].connections -= 1
            if connection.value.kind == .http2 { forgetMultiplexed(connection) }
            Socket.close(connection.value.descriptor)
            connection.value.session.free()
        }
        pool.give(&connection.value.input)
        pool.give(&connection.value.output)
        if upstreamParts.value.owner == connection.reference {
            toUpstream.value.truncate(to: upstreamParts.value.start)
            upstreamParts.value.abandonOpen()
        }
        state.value.deadUpstreams.append(connection.reference)
    }

    // MARK: Passive health

    func noteSuccess(_ connection: Slot<UpstreamConnection>) {
        endpoints[Int(connection.value.endpoint)].failuresInARow = 0
        endpoints[Int(connection.value.endpoint)].ejectedUntilMicroseconds = 0
    }

    private func noteFailure(_ endpoint: Int) {
        endpoints[endpoint].failuresInARow += 1
        guard endpoints[endpoint].failuresInARow >= HardLimits.ejectAfterFailures else { return }
        endpoints[endpoint].ejectedUntilMicroseconds =
            state.value.nowMicroseconds + HardLimits.ejectMicroseconds
    }
}

extension EndpointState {
    /// The state of an endpoint with the path of its Unix socket and the name its certificate must have.
    static func make(
        _ endpoint: EndpointConfiguration, upstream: Int
    ) -> (EndpointState, path: String, serverName: String) {
        switch endpoint.transport {
        case .unixSocket(let path):
            let state = EndpointState(
                upstream: Int32(upstream), address: nil, nameHash: StableHash.of(endpoint.text),
                isUnixSocket: true, usesTLS: false)
            return (state, path, "")
        case .tcp(let host, let port, let tls):
            let state = EndpointState(
                upstream: Int32(upstream), address: SocketAddress(ip: host, port: UInt16(port)),
                nameHash: StableHash.of(endpoint.text), isUnixSocket: false, usesTLS: tls)
            return (state, "", host)
        }
    }
}

/// Builds the TLS contexts of one worker, on whatever thread.
struct TLSParts {
    let wire: TLSWire
    let library: TLSLibrary

    func server(
        _ listen: ListenConfiguration, _ tickets: TicketKeys
    ) throws(TLSError) -> TLSServerContext {
        let settings = TLSServerSettings(
            certificates: listen.certificates.map {
                TLSServerSettings.Certificate(chainPath: $0.chainPath, privateKeyPath: $0.privateKeyPath)
            },
            minimumVersion: listen.minimumTLSVersion == .v1_3 ? .v13 : .v12,
            clientCAPath: listen.clientCAPath)
        return try TLSServerContext(settings: settings, tickets: tickets, wire: wire, library: library)
    }

    /// The client sides that differ from those of a former configuration.
    ///
    /// - Parameter trust: what each upstream of the former one trusted, by number; nil builds all.
    func clients(
        _ plan: ServingPlan, former: UpstreamTrust?
    ) throws(TLSError) -> [(upstream: Int, context: TLSClientContext?)] {
        let trust = UpstreamTrust(plan)
        var changed: [(upstream: Int, context: TLSClientContext?)] = []
        for (upstream, number, _) in plan.upstreamNumbers
        where former?.byUpstream[number] != trust.byUpstream[number] || former == nil {
            guard trust.usesTLS(number) else {
                changed.append((number, nil))
                continue
            }
            changed.append(
                (
                    number,
                    try TLSClientContext(
                        caPath: upstream.caPath, wire: wire,
                        applicationProtocols: upstream.usesHTTP2 ? ["h2", "http/1.1"] : ["http/1.1"],
                        library: library)
                ))
        }
        return changed
    }
}

/// What upstreams are trusted by and spoken to in, so that a reload keeps the connections of those where
/// nothing has changed.
struct UpstreamTrust: Equatable {
    private static let none = "none"

    /// By upstream number: without TLS, the system's authorities, or a file's path and contents.
    private(set) var byUpstream: [Int: String] = [:]

    func usesTLS(_ upstream: Int) -> Bool { byUpstream[upstream]?.hasPrefix(Self.none) == false }

    init(_ plan: ServingPlan) {
        for (upstream, number, _) in plan.upstreamNumbers {
            let usesTLS = upstream.endpoints.contains {
                if case .tcp(_, _, true) = $0.transport { true } else { false }
            }
            guard usesTLS else {
                byUpstream[number] = Self.none + (upstream.usesHTTP2 ? " h2" : "")
                continue
            }
            let authorities = upstream.caPath.map { "\($0) \(FileContents.digest($0))" } ?? "system"
            byUpstream[number] = authorities + (upstream.usesHTTP2 ? " h2" : "")
        }
    }
}
