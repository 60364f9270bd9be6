package import Configuration
import HTTPWire
import Reactor

/// Where a request would go, for commands that explain.
package enum RouteFinding: Sendable, Equatable {
    /// The path is refused with 400; one sentence.
    case malformed(String)
    /// No route covers the path, which is in normal form.
    case noRoute(path: String)
    /// The path has routes, but none for this method: the value of `Allow`.
    case otherMethods(path: String, allow: String)
    /// Servers read the path in two ways, which lead to two routes: those with a key are refused with 400.
    case twoRoutes(path: String, why: String)
    /// The route's index in the configuration.
    case route(Int, path: String)
}

extension RouteFinding {
    /// The route of a request, found as workers find it.
    ///
    /// - Parameters:
    ///   - routes: as the loader has checked them.
    ///   - method: as it would stand in the request.
    ///   - target: path and query, starting with `/`.
    package static func find(
        _ method: String, _ target: String, in routes: [RouteConfiguration]
    ) -> RouteFinding {
        let bytes = Array(target.utf8)
        let pathEnd = bytes.firstIndex(of: UInt8(ascii: "?")) ?? bytes.count
        var block = Block.allocate(capacity: 2 * bytes.count + 16)
        defer { block.deallocate() }
        var writer = ByteWriter(block)
        if let problem = TargetNormaliser.normalise(bytes.span, 0..<pathEnd, into: &writer) {
            return .malformed("\(problem)")
        }
        block.commit(writer)
        let path = String(copying: block.readable)
        let router = Router(routes)
        let match = router.match(block.readable)
        if let why = router.ambiguity(match, &block, pathCount: block.count) {
            return .twoRoutes(path: path, why: "\(why)")
        }
        guard let entry = match else { return .noRoute(path: path) }
        let known = Method.allCases.first { "\($0.name)" == method } ?? .other
        let number = router.entries[entry].routes[Int(known.rawValue)]
        guard number >= 0 else {
            return .otherMethods(path: path, allow: String(copying: router.entries[entry].allow.readable))
        }
        return .route(Int(number), path: path)
    }
}
