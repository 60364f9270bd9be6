import Configuration
import HTTPWire
import Reactor

// A trie over path segments in flat rows. A literal segment beats `*`, which beats `**`; a branch that
// leads nowhere is left for the next kind, so the most specific path wins whatever the order in the file.
// A final slash does not count, and `/a/**` covers `/a`.

/// The routes that share one path, by method.
struct RouteEntry {
    /// Route for each `Method`; -1 where the path has none.
    var routes: InlineArray<10, Int32>
    /// The value of `Allow`.
    var allow: Block
}

/// Finds the route of a normalised path. Immutable once built.
@safe
struct Router {
    private struct Node {
        var literal: Block
        var firstChild: Int32 = -1
        var nextSibling: Int32 = -1
        var anySegment: Int32 = -1
        /// Entry of a path that ends here.
        var entry: Int32 = -1
        /// Entry of `**` behind this segment.
        var rest: Int32 = -1
    }

    private let nodes: FixedArray<Node>
    let entries: FixedArray<RouteEntry>
    /// Whether a word of a route holds what a path may have as an escape too.
    let hasReservedWords: Bool

    /// - Parameter routes: paths as the configuration has checked them.
    init(_ routes: [RouteConfiguration]) {
        var nodes = [Node(literal: .none)]
        var methods: [[(route: Int, methods: [String])]] = []
        var hasReservedWords = false
        for (number, route) in routes.enumerated() {
            var node = 0
            var usesRest = false
            for segment in route.path.split(separator: "/", omittingEmptySubsequences: true) {
                if segment == "**" {
                    usesRest = true
                    break
                }
                let isAny = segment == "*" || (segment.hasPrefix("{") && segment.hasSuffix("}"))
                if !isAny, segment.utf8.contains(where: TargetNormaliser.mayBeEscaped) {
                    hasReservedWords = true
                }
                node = Self.child(of: node, isAny ? nil : String(segment), in: &nodes)
            }
            var entry = usesRest ? nodes[node].rest : nodes[node].entry
            if entry < 0 {
                entry = Int32(methods.count)
                methods.append([])
                if usesRest { nodes[node].rest = entry } else { nodes[node].entry = entry }
            }
            methods[Int(entry)].append((number, route.methods))
        }
        self.hasReservedWords = hasReservedWords
        self.nodes = FixedArray(nodes)
        entries = FixedArray(methods.map(Self.entry))
    }

    /// Ends the rows, once nobody routes by them any more.
    func deallocate() {
        for index in 0..<nodes.count { nodes[index].literal.deallocate() }
        nodes.deallocate()
        for index in 0..<entries.count { entries[index].allow.deallocate() }
        entries.deallocate()
    }

    private static func child(of node: Int, _ literal: String?, in nodes: inout [Node]) -> Int {
        guard let literal else {
            if nodes[node].anySegment < 0 {
                nodes[node].anySegment = Int32(nodes.count)
                nodes.append(Node(literal: .none))
            }
            return Int(nodes[node].anySegment)
        }
        let wanted = Array(literal.utf8)
        var child = Int(nodes[node].firstChild)
        while child >= 0 {
            if isEqual(nodes[child].literal.readable, wanted.span, 0..<wanted.count) { return child }
            child = Int(nodes[child].nextSibling)
        }
        var fresh = Node(literal: .constant(bytes: wanted))
        fresh.nextSibling = nodes[node].firstChild
        nodes[node].firstChild = Int32(nodes.count)
        nodes.append(fresh)
        return nodes.count - 1
    }

    private static func entry(_ routes: [(route: Int, methods: [String])]) -> RouteEntry {
        var table = InlineArray<10, Int32>(repeating: -1)
        for (route, names) in routes {
            for method in Method.allCases {
                let isNamed = names.contains("\(method.name)")
                let coversHead = method == .head && names.contains("GET")
                if names.isEmpty || isNamed || (coversHead && table[Int(method.rawValue)] < 0) {
                    table[Int(method.rawValue)] = Int32(route)
                }
            }
        }
        let allowed = Method.allCases.filter {
            $0 != .other && $0 != .connect && table[Int($0.rawValue)] >= 0
        }
        return RouteEntry(
            routes: table, allow: .constant(allowed.map { "\($0.name)" }.joined(separator: ", ")))
    }

    /// The entry that covers a path, or nil.
    ///
    /// - Parameter path: in normal form, starting with `/`, without query.
    func match(_ path: Span<UInt8>) -> Int? {
        let found = find(node: 0, path, from: 1)
        return found >= 0 ? Int(found) : nil
    }

    private func find(node: Int, _ path: Span<UInt8>, from start: Int) -> Int32 {
        if start >= path.count {
            return nodes[node].entry >= 0 ? nodes[node].entry : nodes[node].rest
        }
        var end = start
        while end < path.count, path[end] != 0x2F { end &+= 1 }
        var child = Int(nodes[node].firstChild)
        while child >= 0 {
            if Self.isEqual(nodes[child].literal.readable, path, start..<end) {
                let found = find(node: child, path, from: end &+ 1)
                if found >= 0 { return found }
                break
            }
            child = Int(nodes[child].nextSibling)
        }
        if nodes[node].anySegment >= 0 {
            let found = find(node: Int(nodes[node].anySegment), path, from: end &+ 1)
            if found >= 0 { return found }
        }
        return nodes[node].rest
    }

    @inline(__always)
    private static func isEqual(_ literal: Span<UInt8>, _ path: Span<UInt8>, _ range: Range<Int>) -> Bool {
        guard literal.count == range.count else { return false }
        for index in 0..<literal.count where literal[index] != path[range.lowerBound &+ index] {
            return false
        }
        return true
    }
}
