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
    func ambiguity(_ match: Int?, _ block: inout Block, pathCount: Int) -> StaticString? {
        if block.span(0..<pathCount).contains(0x3B), match != matchWithoutParameters(&block, pathCount) {
            return "a parameter in the path that some servers cut off, to another route"
        }
        return nil
    }

    private func matchWithoutParameters(_ block: inout Block, _ pathCount: Int) -> Int? {
        let whole = block.count
        TargetNormaliser.appendWithoutParameters(&block, pathCount: pathCount)
        let found = match(block.span(whole..<block.count))
        block.truncate(to: whole)
        return found
    }
}
