import HTTPWire
import Reactor

// The path that is matched is the path that is forwarded, but its segments mean what the server behind says
// they do. Where two ways to read them lead to two routes, a call that one route admits would reach what
// another one guards.

extension Router {
    /// What in a path leads to another route with some servers; nil where it is the same with all.
    ///
    /// - Parameters:
    ///   - match: what `match` says of the path as it is.
    ///   - block: begins with the path, in normal form, and has room for it once more behind what it holds.
    @inline(__always)
    func ambiguity(_ match: Int?, _ block: inout Block, pathCount: Int) -> StaticString? {
        let hasParameter = block.span(0..<pathCount).contains(0x3B)
        // What the normal form keeps escaped is in no word of plain letters, which nearly all routes have.
        let hasEscape = hasReservedWords && block.span(0..<pathCount).contains(0x25)
        guard hasParameter || hasEscape else { return nil }
        return ambiguity(match, &block, pathCount, hasParameter, hasEscape)
    }

    private func ambiguity(
        _ found: Int?, _ block: inout Block, _ pathCount: Int, _ hasParameter: Bool, _ hasEscape: Bool
    ) -> StaticString? {
        if hasParameter, found != match(reading: &block, pathCount, cutting: true, decoding: false) {
            return "a parameter in the path that some servers cut off, to another route"
        }
        if hasEscape, found != match(reading: &block, pathCount, cutting: false, decoding: true) {
            return "an escape in the path that some servers decode, to another route"
        }
        if hasParameter, hasEscape, found != match(reading: &block, pathCount, cutting: true, decoding: true)
        {
            return "a parameter and an escape in the path that some servers read, to another route"
        }
        return nil
    }

    private func match(
        reading block: inout Block, _ pathCount: Int, cutting: Bool, decoding: Bool
    ) -> Int? {
        let whole = block.count
        TargetNormaliser.append(reading: &block, pathCount: pathCount, cutting: cutting, decoding: decoding)
        let found = match(block.span(whole..<block.count))
        block.truncate(to: whole)
        return found
    }
}
