package import Reactor

/// The servers that take writes, as a sentinel or a cluster names them.
package struct StoreTopology: Sendable, Equatable {
    /// Masters that are followed at most; a connection of every worker leads to each.
    package static let mastersMax = 128

    /// A master, and where its name leads.
    package struct Master: Sendable, Equatable {
        package var node: StoreNode
        package var address: SocketAddress

        package init(node: StoreNode, address: SocketAddress) {
            self.node = node
            self.address = address
        }
    }

    /// In the order of their addresses; those of a cluster that have no slots yet included.
    package var masters: [Master]
    /// Index of the master of each of the 16,384 slots, `ClusterSlot.nobody` where there is none; empty
    /// without a cluster.
    package var owners: [UInt8]

    package init(masters: [Master], owners: [UInt8]) {
        self.masters = masters
        self.owners = owners
    }
}
