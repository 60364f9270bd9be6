import Configuration
import HTTPWire
import Keys
import Reactor
import TLS

// The idle connections of an endpoint form a list, last used first: the warm ones are used, the others grow
// old and are closed. What breaks is retried only where nothing can have reached the application.

extension Worker {
    // MARK: Choice

    /// The endpoint for a call, or nil when none may be used.
    func chooseEndpoint(_ exchange: Slot<Exchange>) -> Int? {
        let number = Int(exchange.value.upstream)
        let first = upstreams[number].firstEndpoint
        let count = upstreams[number].endpointCount
        if count == 1 { return isUsable(first) ? first : nil }
        let start: Int
        switch upstreams[number].balance {
        case .roundRobin:
            upstreams[number].turn = (upstreams[number].turn + 1) % count
            start = upstreams[number].turn
        case .hash:
            start = hashedChoice(exchange, count)
        case .leastOutstanding:
            return leastOutstanding(first, count, avoiding: Int(exchange.value.endpoint))
        }
        // A retry goes elsewhere, and so does a call whose endpoint is out.
        for step in 0..<count {
            let endpoint = first + (start + step) % count
            if isUsable(endpoint), endpoint != Int(exchange.value.endpoint) { return endpoint }
        }
        let previous = Int(exchange.value.endpoint)
        return previous >= 0 && isUsable(previous) ? previous : nil
    }

    /// Two at random, the less busy of them (Mitzenmacher 2001); all in turn when neither may be used.
    private func leastOutstanding(_ first: Int, _ count: Int, avoiding previous: Int) -> Int? {
        let random = state.value.random.next()
        let one = first + Int(random % UInt64(count))
        let other = first + (one - first + 1 + Int((random >> 32) % UInt64(count - 1))) % count
        let oneIsGood = isUsable(one) && one != previous
        let otherIsGood = isUsable(other) && other != previous
        if oneIsGood, otherIsGood {
            return endpoints[other].outstanding < endpoints[one].outstanding ? other : one
        }
        if oneIsGood { return one }
        if otherIsGood { return other }
        for endpoint in first..<first + count where isUsable(endpoint) && endpoint != previous {
            return endpoint
        }
        return previous >= 0 && isUsable(previous) ? previous : nil
    }

    /// Rendezvous hashing over accounts: an endpoint that goes moves only its own accounts.
    private func hashedChoice(_ exchange: Slot<Exchange>, _ count: Int) -> Int {
        guard exchange.value.key >= 0, let key = keys.occupant(at: Int(exchange.value.key)) else {
            return Int(state.value.random.next() % UInt64(count))
        }
        let first = upstreams[Int(exchange.value.upstream)].firstEndpoint
        var best = 0
        var bestScore: UInt64 = 0
        for index in 0..<count where isUsable(first + index) {
            var mixer = FastRandom(
                seed: key.value.accountHash.low ^ (UInt64(index + 1) &* 0x9E37_79B9_7F4A_7C15))
            let score = mixer.next()
            if score >= bestScore {
                bestScore = score
                best = index
            }
        }
        return best
    }

    private func isUsable(_ endpoint: Int) -> Bool {
        let found = endpoints[endpoint]
        return found.isHealthy && (found.isUnixSocket || found.address != nil)
            && (found.ejectedUntilMicroseconds == 0
                || found.ejectedUntilMicroseconds <= state.value.nowMicroseconds
                || upstreams[Int(found.upstream)].endpointCount == 1)
    }

    // MARK: Idle connections

    func park(_ connection: Slot<UpstreamConnection>) {
        let endpoint = Int(connection.value.endpoint)
        let upstream = Int(endpoints[endpoint].upstream)
        endpoints[endpoint].outstanding -= 1
        guard !state.value.isDraining, endpoints[endpoint].idleCount < upstreams[upstream].idleMax else {
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

    // MARK: Ends

    func expireUpstream(_ connection: Slot<UpstreamConnection>) {
        if connection.value.kind == .http2, connection.value.phase == .busy {
            retireMultiplexed(connection)
            return
        }
        switch connection.value.phase {
        case .idle:
            unpark(connection)
            destroy(connection)
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
            // A tunnel that has fallen silent says nothing against its endpoint.
            if !exchange.value.isTunnel { noteFailure(Int(connection.value.endpoint)) }
            failExchange(exchange, .upstreamTimeout)
        }
    }

    /// The connection cannot go on. Its call is retried where that is safe, answered, or cut.
    func upstreamBroke(_ connection: Slot<UpstreamConnection>, _ reason: Reason) {
        if connection.value.kind == .http2 {
            multiplexedBroke(connection, reason)
            return
        }
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
        let closedSilently =
            reason == .upstreamClosed && connection.value.isReused && !connection.value.hasAnswered
            && exchange.value.method.isIdempotent && exchange.value.requestFraming == .none
        let endpoint = Int(connection.value.endpoint)
        // A pooled connection that had died of age says nothing against its endpoint.
        if !closedSilently, !connection.value.stream.isBlameless { noteFailure(endpoint) }
        dropUpstream(of: exchange)
        if neverConnected { metrics.add(.upstreamConnectFailures) }
        if neverConnected || closedSilently, mayRetry(exchange) {
            retry(exchange)
        } else {
            failExchange(exchange, reason)
        }
    }

    /// No socket could be made at all.
    func connectFailed(_ exchange: Slot<Exchange>, endpoint: Int) {
        metrics.add(.upstreamConnectFailures)
        noteFailure(endpoint)
        dropUpstream(of: exchange)
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

extension UpstreamState {
    init(_ configuration: UpstreamConfiguration, firstEndpoint: Int) {
        self.init(
            firstEndpoint: firstEndpoint, endpointCount: configuration.endpoints.count,
            balance: configuration.balance, retries: configuration.retries,
            connectTimeoutMicroseconds: Int64(configuration.connectTimeoutMilliseconds) * 1_000,
            idleTimeoutMicroseconds: Int64(configuration.idleTimeoutMilliseconds) * 1_000,
            idleMax: configuration.idleConnectionsPerWorker,
            connectionsMax: configuration.connectionsPerWorker, usesHTTP2: configuration.usesHTTP2)
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
                upstream: Int32(upstream), address: nil, isUnixSocket: true, usesTLS: false)
            return (state, path, "")
        case .tcp(let host, let port, let tls):
            let state = EndpointState(
                upstream: Int32(upstream), address: SocketAddress(ip: host, port: UInt16(port)),
                isUnixSocket: false, usesTLS: tls)
            return (state, "", host)
        }
    }
}

extension TLSServerSettings {
    init(_ listen: ListenConfiguration) {
        self.init(
            certificates: listen.certificates.map {
                Certificate(chainPath: $0.chainPath, privateKeyPath: $0.privateKeyPath)
            },
            minimumVersion: listen.minimumTLSVersion == .v1_3 ? .v13 : .v12,
            clientCAPath: listen.clientCAPath)
    }
}
