package import Configuration
package import Keys
import Reactor
import TLS

// A reload in order: fix what cannot change in a running process, number the names, compile, bind new
// addresses, build every worker's TLS contexts, and only then, when nothing can fail any more, hand it all to
// the resolver, which looks up new names and has the workers go over. Until there everything is beside what
// runs, and is thrown away at the first problem.

/// What a request to reload came to.
package struct ReloadOutcome: Sendable {
    /// Whether the configuration takes effect.
    package var isAccepted: Bool
    /// Why it does not: sentences for an operator.
    package var problems: [String]
    /// What it changes that a running process keeps as it was.
    package var warnings: [String]

    package init(isAccepted: Bool, problems: [String] = [], warnings: [String] = []) {
        self.isAccepted = isAccepted
        self.problems = problems
        self.warnings = warnings
    }
}

extension GatewayServer {
    /// Goes over to another configuration without losing a connection. Called by the control thread alone.
    ///
    /// - Returns: sentences about what stays as it was until the process is replaced.
    /// - Throws: `ServerProblem`; nothing has changed then.
    package func reload(_ wanted: GatewayConfiguration) throws(ServerProblem) -> [String] {
        // Not what the workers serve: the reload before this one may still wait for its names.
        let present = accepted
        var (configuration, kept) = wanted.keepingFixed(of: present)
        if configuration.store.caPath.map(FileContents.digest) != storeTrust { kept.append("store.ca") }
        var numbers = numbers
        guard let assigned = numbers.assign(configuration) else {
            throw ServerProblem(
                "the configuration names many more routes, tiers, upstreams or endpoints than the one this "
                    + "process started with: replace the process (SIGUSR2)")
        }
        let fresh = ServingPlan(
            configuration.declaring(memoryKeys), assigned, generation: generation &+ 1)
        let trust = (server: configuration.listen.trust, upstreams: UpstreamTrust(fresh))
        let sockets = try bindChanged(configuration.listen, since: present.listen)
        var adoptions: [Adoption] = []
        do {
            for (index, worker) in workers.enumerated() {
                let adoption = Adoption(fresh)
                let parts = TLSParts(wire: worker.wire, library: worker.library)
                if trust.server != serverTrust {
                    adoption.server = try parts.server(configuration.listen, shared.tickets)
                }
                adoption.clients = try parts.clients(fresh, former: upstreamTrust)
                adoption.https = sockets.https?[index]
                adoption.plaintext = sockets.plaintext.map { $0.isEmpty ? [] : $0[index] }
                adoptions.append(adoption)
            }
        } catch {
            for socket in ((sockets.https ?? []) + (sockets.plaintext ?? [])).joined() {
                Socket.close(socket)
            }
            throw ServerProblem(error.message)
        }
        accepted = configuration
        self.numbers = numbers
        generation = fresh.generation
        serverTrust = trust.server
        upstreamTrust = trust.upstreams
        shared.names = LogNames(numbers)
        noteSockets(https: sockets.https, plaintext: sockets.plaintext)
        resolver.adopt(Resolver.Pending(plan: fresh, adoptions: adoptions))
        return kept.map { "\($0) stays as it was until the process is replaced (SIGUSR2)" }
    }

    /// Lets keys in, or keeps them out, that live in memory: to the workers they are keys of another
    /// generation of the configuration. Sockets and TLS contexts stay, so that it cannot fail, whatever has
    /// become of the files that they were made of. Called by the control thread alone.
    package func serve(memoryKeys keys: [KeyRecord]) {
        guard let assigned = numbers.assign(accepted) else {
            preconditionFailure("every name of the present configuration has its number")
        }
        memoryKeys = keys
        generation &+= 1
        let fresh = ServingPlan(accepted.declaring(keys), assigned, generation: generation)
        resolver.adopt(
            Resolver.Pending(plan: fresh, adoptions: workers.map { _ in Adoption(fresh) }, hasNames: false))
    }
}

extension GatewayServer {
    /// Sockets of every worker for the addresses that have changed; empty for a port that is gone.
    private func bindChanged(
        _ listen: ListenConfiguration, since present: ListenConfiguration
    ) throws(ServerProblem) -> (https: [[Descriptor]]?, plaintext: [[Descriptor]]?) {
        var https: [[Descriptor]]?
        if listen.httpsAddress != present.httpsAddress {
            https = try bindAll(listen.httpsAddress, count: workers.count, named: .https)
        }
        guard listen.plaintext?.address != present.plaintext?.address else { return (https, nil) }
        guard let text = listen.plaintext?.address else { return (https, []) }
        do {
            return (https, try bindAll(text, count: workers.count, named: .plaintext))
        } catch {
            for socket in (https ?? []).joined() { Socket.close(socket) }
            throw error
        }
    }
}

extension GatewayConfiguration {
    /// This configuration with more keys.
    fileprivate func declaring(_ keys: [KeyRecord]) -> GatewayConfiguration {
        var result = self
        result.keys.staticKeys += keys
        return result
    }

    /// This configuration with what a running process cannot change taken from the present one: sizes of
    /// tables, threads, and the store, whose windows and keys it would have to carry over.
    ///
    /// - Returns: also the keys of what differs.
    fileprivate func keepingFixed(
        of present: GatewayConfiguration
    ) -> (configuration: GatewayConfiguration, kept: [String]) {
        var result = self
        var kept: [String] = []
        func keep<Value: Equatable>(_ key: String, _ path: WritableKeyPath<GatewayConfiguration, Value>) {
            guard self[keyPath: path] != present[keyPath: path] else { return }
            result[keyPath: path] = present[keyPath: path]
            kept.append(key)
        }
        keep("workers", \.workers)
        keep("limits.connections", \.limits.connections)
        keep("limits.handshakes", \.limits.handshakes)
        keep("limits.head", \.limits.headBytes)
        keep("limits.fields", \.limits.fields)
        keep("limits.failed_authentications", \.failedAuthenticationsPerMinute)
        keep("keys.cache.entries", \.keys.cacheEntries)
        keep("store.prefix", \.store.prefix)
        if admin?.address != present.admin?.address {
            kept.append("admin.address")
            if let address = present.admin?.address, result.admin != nil {
                // Its tokens and names are anybody's to change.
                result.admin?.address = address
            } else {
                result.admin = present.admin
            }
        }
        let isOtherStore =
            store.endpoint != present.store.endpoint || store.user != present.store.user
            || store.password?.reveal() != present.store.password?.reveal()
            || store.database != present.store.database || store.caPath != present.store.caPath
        if isOtherStore {
            kept.append("store.url")
            result.store.endpoint = present.store.endpoint
            result.store.user = present.store.user
            result.store.password = present.store.password
            result.store.database = present.store.database
            result.store.caPath = present.store.caPath
        }
        if keys.pepper?.reveal() != present.keys.pepper?.reveal() {
            kept.append("keys.pepper_file")
            result.keys.pepper = present.keys.pepper
        }
        return (result, kept)
    }
}

extension ListenConfiguration {
    /// What the TLS contexts of callers are made of: settings, paths and contents.
    var trust: String {
        var parts = [minimumTLSVersion == .v1_3 ? "1.3" : "1.2"]
        for path in certificates.flatMap({ [$0.chainPath, $0.privateKeyPath] }) + [clientCAPath ?? ""] {
            parts.append(path)
            if !path.isEmpty { parts.append(FileContents.digest(path)) }
        }
        return parts.joined(separator: "\n")
    }
}
