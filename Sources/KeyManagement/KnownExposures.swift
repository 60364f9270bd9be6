package import Keys

/// Which keys that came in clear stand in the trail already: who has a key, be it a revoked one, can send it
/// as often as he likes, and the trail holds so many lines and no more.
package struct KnownExposures {
    /// Keys that exist and are remembered; beyond, all are forgotten at once.
    private static let digestsMax = 65_536
    /// How long a key's line stands for all that come after it: an hour.
    private static let microseconds: Int64 = 3_600_000_000

    private var written: [Digest256: (atMicroseconds: Int64, wasRevoked: Bool)] = [:]

    /// Nothing has come in clear yet.
    package init() {}

    /// Whether there is to be a line for the key: one an hour, and one for a key that has been revoked.
    ///
    /// - Parameter now: on the monotonic clock, in microseconds.
    package func needsLine(_ digest: Digest256, isRevoked: Bool, at now: Int64) -> Bool {
        guard let last = written[digest] else { return true }
        return !(isRevoked && last.wasRevoked) && now - last.atMicroseconds >= Self.microseconds
    }

    /// To be called when the line has been written.
    ///
    /// - Parameter isRevoked: whether the key is revoked by now.
    package mutating func note(_ digest: Digest256, isRevoked: Bool, at now: Int64) {
        if written.count >= Self.digestsMax, written[digest] == nil {
            written = written.filter { now - $0.value.atMicroseconds < Self.microseconds }
            if written.count >= Self.digestsMax { written = [:] }
        }
        written[digest] = (now, isRevoked)
    }
}
