import Configuration
import Keys
import Reactor
import TLS

// A reload builds everything beside what runs, off the workers, and hands each worker its part: the worker
// swaps it in between two events. Calls under way go on with what they carry themselves (their serialised
// head, their bounds, their key's slot) and with numbers that mean the same in every configuration; what a
// call will not finish on is kept until it has: TLS contexts while sessions of them are open, slots of keys
// while calls hold them, connections to endpoints that are gone until their answer is complete.

/// What one worker needs of a new configuration.
final class Adoption: @unchecked Sendable {
    // `@unchecked`: built by one thread, then handed over.
    /// What a caller sees of the old configuration is gone from here on.
    let plan: ServingPlan
    /// nil keeps the present one: nothing that it was made of has changed.
    var server: TLSServerContext?
    /// Client sides that have changed, by upstream; a nil context is one without TLS.
    var clients: [(upstream: Int, context: TLSClientContext?)] = []
    /// Where new endpoints' names lead.
    var addresses: [(endpoint: Int, addresses: [SocketAddress])] = []
    /// Sockets in place of the present ones; nil keeps them, none closes them.
    var https: [Descriptor]?
    var plaintext: [Descriptor]?

    init(_ plan: ServingPlan) { self.plan = plan }
}

/// The sockets of one worker.
struct Listeners: Sendable {
    var https: [Descriptor] = []
    var plaintext: [Descriptor] = []
}

/// What a reload replaces; touched by the worker's own thread alone.
struct WorkerSnapshot {
    var plan: ServingPlan
    /// Of `plan`.
    var rows: PlanRows
    var server: TLSServerContext
    /// By upstream number; nil without TLS.
    var clients: [TLSClientContext?]
    /// The name that an endpoint's certificate must have, by endpoint number.
    var serverNames: [String]
    /// By endpoint number; empty where there is none.
    var unixPaths: [String]
    /// What an endpoint's name stands for, by endpoint number; empty for others and while it is not known.
    var addresses: [[SocketAddress]]
    var listeners: Listeners
    /// Contexts of earlier configurations that may have open sessions.
    var retired: [any CountedContext] = []
}

extension Worker {
    /// Goes over to a new configuration. Called between two steps.
    func adopt(_ adoption: Adoption) {
        let old = snapshot.value.plan
        snapshot.value.plan = adoption.plan
        snapshot.value.rows = adoption.plan.rows
        if let server = adoption.server {
            snapshot.value.retired.append(snapshot.value.server)
            snapshot.value.server = server
        }
        adoptUpstreams(adoption, old)
        for (endpoint, addresses) in adoption.addresses { adopt(addresses, of: endpoint, retired: []) }
        if adoption.plan.generation > 1 { clearFreshCounters(adoption.plan) }
        adoptKeys(old)
        adoptListeners(adoption)
        releaseRetired()
        metrics.set(.generation, to: UInt64(adoption.plan.generation))
    }

    /// Lets go of contexts that no session uses any more.
    func releaseRetired() {
        snapshot.value.retired.removeAll { $0.openSessions == 0 }
    }

    // MARK: Upstreams

    private func adoptUpstreams(_ adoption: Adoption, _ old: ServingPlan) {
        let plan = adoption.plan
        var changed: Set<Int> = []
        for (number, context) in adoption.clients {
            if let former = snapshot.value.clients[number] { snapshot.value.retired.append(former) }
            snapshot.value.clients[number] = context
            changed.insert(number)
        }
        var kept: Set<Int> = []
        var current: Set<Int> = []
        for (upstream, number, members) in plan.upstreamNumbers {
            upstreams[number].assume(
                upstream, members: members, isFresh: plan.numbers.upstreams.fresh.contains(number))
            current.insert(number)
            for (endpoint, configuration) in zip(members, upstream.endpoints) {
                kept.insert(endpoint)
                let isNew = plan.numbers.endpoints.fresh.contains(endpoint) || endpoints[endpoint].isRetired
                if isNew { install(configuration, at: endpoint, upstream: number) }
                // Warm connections of a trust that is no longer asked for are not used again.
                if isNew || changed.contains(number) {
                    closeIdle(endpoint)
                    endpoints[endpoint].validFrom = plan.generation
                    endpoints[endpoint].declinesHTTP2 = false
                }
            }
        }
        for (_, _, members) in old.upstreamNumbers {
            for endpoint in members where !kept.contains(endpoint) {
                endpoints[endpoint].validFrom = EndpointState.never
                closeIdle(endpoint)
            }
        }
        // Calls that began with an upstream that is gone must not find somebody else's endpoints.
        for number in 0..<upstreams.count where !current.contains(number) {
            for place in 0..<upstreams[number].endpointCount
            where plan.numbers.endpoints.fresh.contains(upstreams[number].member(place)) {
                upstreams[number].setMembers([])
                break
            }
        }
    }

    /// Makes a row an endpoint's. Connections of a former owner are counted in it until they end.
    private func install(_ configuration: EndpointConfiguration, at endpoint: Int, upstream: Int) {
        let (fresh, path, name) = EndpointState.make(configuration, upstream: upstream)
        endpoints[endpoint].assume(fresh)
        snapshot.value.unixPaths[endpoint] = path
        snapshot.value.addresses[endpoint] = []
        snapshot.value.serverNames[endpoint] = name
    }

    private func clearFreshCounters(_ plan: ServingPlan) {
        for route in plan.numbers.routes.fresh { metrics.clear(route: route) }
        for tier in plan.numbers.tiers.fresh { metrics.clear(tier: tier) }
        for upstream in plan.numbers.upstreams.fresh { metrics.clear(upstream: upstream) }
    }

    // MARK: Keys

    /// Declared keys are read again from the new configuration, and keys whose tier may exist now are asked
    /// for again. All others are compiled anew when they are next used, see `standing`.
    private func adoptKeys(_ old: ServingPlan) {
        for (digest, record) in old.staticKeys where plan.staticKeys[digest] != record { forget(digest) }
        for digest in plan.staticKeys.keys where old.staticKeys[digest] == nil { forget(digest) }
        if !plan.tierNumbers.keys.allSatisfy({ old.tierNumbers[$0] != nil }) { cache.forgetUnknown() }
    }

    /// Puts a key that was compiled for an earlier configuration into a slot of its own for this one; calls
    /// under way keep the old slot.
    ///
    /// - Returns: nil when there is no slot left.
    func recompile(_ entry: Int) -> Int32? {
        guard let former = keys.occupant(at: Int(cache.value(of: entry))),
            let record = keyRecords.value[former.index], let key = keys.allocate(makeKey(record))
        else { return nil }
        keyRecords.value[key.index] = record
        attachAccount(key, record.account)
        key.value.seenSeconds = former.value.seenSeconds
        releaseCachedKey(at: Int(cache.replaceValue(of: entry, with: Int32(key.index))))
        return Int32(key.index)
    }

    // MARK: Listeners

    /// Serves new sockets. Callers that already wait at an old one are taken before it closes.
    private func adoptListeners(_ adoption: Adoption) {
        guard state.value.hasListeners else {
            for socket in (adoption.https ?? []) + (adoption.plaintext ?? []) { Socket.close(socket) }
            return
        }
        if let sockets = adoption.https, serve(sockets, .listener) {
            for socket in snapshot.value.listeners.https { takeWaiting(at: socket, isPlaintextPort: false) }
            snapshot.value.listeners.https = sockets
        }
        if let sockets = adoption.plaintext, serve(sockets, .plaintextListener) {
            for socket in snapshot.value.listeners.plaintext {
                takeWaiting(at: socket, isPlaintextPort: true)
            }
            snapshot.value.listeners.plaintext = sockets
        }
    }

    /// False when the kernel cannot watch them: the present ones go on.
    private func serve(_ sockets: [Descriptor], _ kind: Token.Kind) -> Bool {
        do {
            try watch(sockets, kind, isAccepting ? .read : .none)
            return true
        } catch {
            for socket in sockets {
                poller.remove(socket)
                Socket.close(socket)
            }
            shared.report(.error, "a new address is not served: \(error.reason)", every: 0)
            return false
        }
    }

    /// Watches listening sockets.
    func watch(
        _ sockets: [Descriptor], _ kind: Token.Kind, _ interest: Interest = .read
    ) throws(SystemError) {
        for (index, socket) in sockets.enumerated() {
            let reference = SlotReference(index: index, generation: 0)
            try poller.add(socket, token: Token(kind, reference).rawValue, interest)
        }
    }
}
