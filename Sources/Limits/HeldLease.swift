/// A lease as it stands in Redis, for those who look on: in the head of the window's list, beside what other
/// workers hold.
///
/// Instants in windows and leases are on Redis's clock less what `gateway:clock` holds, which is there when
/// that clock has been set while gateways ran: see `StoreClock.Skew`.
package struct HeldLease: Sendable, Equatable {
    /// The worker that holds it, as `<node>/<number>`; nodes are named as in `gateway:nodes`.
    package let holder: String
    /// All of them count against the window until the holder has told how many it spent.
    package let permits: Int64
    /// When it ends, in microseconds; what its holder has not told by then is counted as spent at this
    /// instant.
    package let endMicroseconds: Int64

    /// Reads `<holder>=<permits>:<end>:<call>`.
    ///
    /// - Returns: nil for anything else.
    package init?(_ text: Substring) {
        let halves = text.split(separator: "=", omittingEmptySubsequences: false)
        guard halves.count == 2, !halves[0].isEmpty else { return nil }
        let parts = halves[1].split(separator: ":", omittingEmptySubsequences: false).map { Int64($0) }
        guard parts.count == 3, let permits = parts[0], let end = parts[1], parts[2] != nil,
            permits >= 0, end >= 0
        else { return nil }
        holder = String(halves[0])
        self.permits = permits
        endMicroseconds = end
    }

    /// The leases that a window's first element tells of; none when it is an instant. One of no permits only
    /// notes what its holder has told.
    package static func held(inHead head: String) -> [HeldLease] {
        guard head.hasPrefix("r:") else { return [] }
        return head.split(separator: ";").dropFirst().compactMap { HeldLease($0) }.filter { $0.permits > 0 }
    }

    /// The gateway that holds it.
    package var node: String { String(holder.prefix { $0 != "/" }) }
}

extension Window {
    /// How its keys end: `60s`, or `250ms` where seconds do not suffice.
    package var keySuffix: String {
        lengthMicroseconds % 1_000_000 == 0
            ? "\(lengthMicroseconds / 1_000_000)s" : "\(lengthMicroseconds / 1_000)ms"
    }
}
