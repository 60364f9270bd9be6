package import Reactor

/// What an error reply means for the command that it answers. In every case but `other` the command has not
/// taken effect, or an effect that may be had twice.
package enum StoreRefusal: Equatable, Sendable {
    /// The slot belongs to that master now.
    case moved(slot: UInt16, StoreNode)
    /// The slot is on its way to that master: this one command is to be asked there after `ASKING`.
    case ask(StoreNode)
    /// Some names of the command have moved to another master already, and some have not.
    case tryAgain
    /// The script is not known, after a restart or `SCRIPT FLUSH`.
    case noScript
    /// A replica, which takes no writes.
    case readOnly
    /// The server cannot serve at the moment.
    case away
    case other

    /// Reads an error reply.
    package init(_ reply: Reply) { self = reply.kind == .error ? Self(text: reply.text) : .other }

    /// The same of its text.
    package init(text: String) {
        let words = text.split(separator: " ", maxSplits: 3)
        switch words.first {
        case "MOVED":
            guard words.count >= 3, let slot = UInt16(words[1]), slot < ClusterSlot.count,
                let node = StoreNode(words[2])
            else {
                self = .away
                return
            }
            self = .moved(slot: slot, node)
        case "ASK":
            guard words.count >= 3, let node = StoreNode(words[2]) else {
                self = .away
                return
            }
            self = .ask(node)
        case "TRYAGAIN": self = .tryAgain
        case "NOSCRIPT": self = .noScript
        case "READONLY": self = .readOnly
        case "LOADING", "MASTERDOWN", "CLUSTERDOWN": self = .away
        default:
            // What a script finds when a name goes away under its hands, in a slot that is on its way.
            self = text.contains("non local key in a cluster node") ? .tryAgain : .other
        }
    }

    /// Whether the question can be answered elsewhere or later only.
    package var isOutage: Bool { self != .other }
}

/// A server by host and port.
package struct StoreNode: Hashable, Sendable, CustomStringConvertible {
    /// A name or an address, without brackets; empty is the host that was asked.
    package var host: String
    package var port: Int

    package init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// `host:port`, as the configuration and Redis write it: an IPv6 address may stand without brackets.
    package init?(_ text: some StringProtocol) {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (1...65_535).contains(port)
        else { return nil }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        self.init(host: host, port: port)
    }

    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// The address when the host is one, without asking anybody.
    package var literalAddress: SocketAddress? {
        SocketAddress(ip: host, port: UInt16(clamping: port))
    }
}
