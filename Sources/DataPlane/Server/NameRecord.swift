import Reactor

/// What a name has stood for, look-up by look-up.
///
/// Some servers of names tell a few of many addresses, other ones at each question. Whatever is among what
/// they tell stays where it is, and what is not goes only when it has been missing for a while.
struct NameRecord: Sendable {
    /// Look-ups in a row without an address after which its connections are given up.
    static let missesMax = 3

    /// Those of the last look-up, at most `HardLimits.addresses`: the ones known before stand first.
    private(set) var addresses: [SocketAddress] = []
    /// Those of earlier look-ups, and how many have missed each since.
    private(set) var missing: [(address: SocketAddress, misses: Int)] = []

    /// Takes a look-up's answer, which is not empty.
    ///
    /// - Returns: whether there is anything to tell, and the addresses that are given up.
    mutating func take(_ found: [SocketAddress]) -> (isChanged: Bool, retired: [SocketAddress]) {
        let former = addresses
        let kept = former.filter(found.contains)
        addresses = Array((kept + found.filter { !former.contains($0) }).prefix(HardLimits.addresses))
        missing = missing.map { ($0.address, $0.misses + 1) }
        missing += former.filter { !found.contains($0) }.map { ($0, 1) }
        missing.removeAll { found.contains($0.address) }
        let retired = missing.filter { $0.misses >= Self.missesMax }.map(\.address)
        // Far more than any name has at once: the oldest are given up early.
        let surplus = missing.prefix(max(0, missing.count - 8 * HardLimits.addresses)).map(\.address)
        missing.removeAll { retired.contains($0.address) || surplus.contains($0.address) }
        return (addresses != former || !retired.isEmpty || !surplus.isEmpty, retired + surplus)
    }
}
