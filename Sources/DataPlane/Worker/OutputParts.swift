import Reactor

/// Whose bytes lie where in a scratch block: one part for each connection, sent in the order they were begun.
///
/// Sending once per turn instead of once per event wakes a peer on the same machine once for many calls,
/// which is most of what a `send` to it costs.
struct OutputParts {
    struct Part {
        var owner: SlotReference
        var range: Range<Int>
    }

    /// The connection whose part is still being written, and where that part begins.
    private(set) var owner = SlotReference.none
    private(set) var start = 0
    private var sealed: [Part] = []
    private var next = 0

    init() { sealed.reserveCapacity(2 * HardLimits.deferredParts) }

    var isEmpty: Bool { owner.isNone && next == sealed.count }
    var count: Int { sealed.count - next }

    /// Begins a part at `end`, the end of what is written; the part before it is whole.
    mutating func open(for reference: SlotReference, at end: Int) {
        seal(at: end)
        owner = reference
        start = end
    }

    /// Ends the part being written.
    mutating func seal(at end: Int) {
        if owner.isNone { return }
        sealed.append(Part(owner: owner, range: start..<end))
        owner = .none
    }

    /// Forgets the part being written.
    mutating func abandonOpen() { owner = .none }

    /// The next part to send.
    mutating func takeNext() -> Part? {
        guard next < sealed.count else {
            sealed.removeAll(keepingCapacity: true)
            next = 0
            return nil
        }
        next += 1
        return sealed[next - 1]
    }
}
