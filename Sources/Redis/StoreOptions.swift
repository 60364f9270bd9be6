/// Where Redis is and how to speak to it.
package struct StoreOptions: Sendable {
    /// What carries the bytes.
    package enum Transport: Sendable {
        case tcp(host: String, port: Int, tls: Bool)
        case unixSocket(path: String)
        /// The master of that name, wherever the sentinels say it is.
        case sentinel([StoreNode], name: String, tls: Bool)
        /// The cluster that these belong to.
        case cluster([StoreNode], tls: Bool)
    }

    /// How it is reached.
    package var transport: Transport
    /// Who asks.
    package var credentials: StoreCredentials
    /// Number of the database, 0 or above.
    package var database: Int
    /// Trust for TLS instead of the system's.
    package var caPath: String?

    /// Options as the configuration resolved them.
    package init(transport: Transport, credentials: StoreCredentials, database: Int, caPath: String?) {
        self.transport = transport
        self.credentials = credentials
        self.database = database
        self.caPath = caPath
    }

    /// Whether the masters have to be asked for.
    package var isFollowing: Bool {
        switch transport {
        case .tcp, .unixSocket: return false
        case .sentinel, .cluster: return true
        }
    }

    /// The same for one of its masters.
    package func leading(to node: StoreNode) -> StoreOptions {
        var options = self
        switch transport {
        case .sentinel(_, _, let tls), .cluster(_, let tls):
            options.transport = .tcp(host: node.host, port: node.port, tls: tls)
        case .tcp, .unixSocket: break
        }
        return options
    }
}
