/// A lease as it stands in Redis, for those who look on: one field of the hash `gateway:lease:{account}:60s`
/// that stands beside the window `gateway:limit:{account}:60s`.
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

    /// - Parameters:
    ///   - holder: the field's name.
    ///   - value: `<permits>:<end>:<call>`.
    /// - Returns: nil for anything else.
    package init?(holder: String, value: String) {
        let parts = value.split(separator: ":", omittingEmptySubsequences: false).map { Int64($0) }
        guard parts.count == 3, let permits = parts[0], let end = parts[1], parts[2] != nil,
            permits >= 0, end >= 0
        else { return nil }
        self.holder = holder
        self.permits = permits
        endMicroseconds = end
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
