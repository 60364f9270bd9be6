import Keys

/// `routes`.
enum RouteSection {
    /// Routes are a label of the metrics and a row in the router.
    private static let routesMax = 1_000
    private static let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"]

    static func read(_ value: Value, upstreams: [String]) -> [RouteConfiguration] {
        var routes: [RouteConfiguration] = []
        var seen: [String: Int] = [:]
        let items = value.list()
        if items.isEmpty { value.problem("at least one route is needed") }
        if items.count > routesMax { value.problem("more than \(routesMax) routes") }
        var sets: Set<[Scope]> = []
        for item in items {
            guard let route = readOne(item, upstreams: upstreams) else { continue }
            let shape = shape(of: route.path)
            for method in route.methods.isEmpty ? methods : route.methods {
                if let other = seen["\(method) \(shape)"] {
                    item.problem("\(method) \(route.path) is already covered by the route in line \(other)")
                    break
                }
                seen["\(method) \(shape)"] = item.place.line
            }
            sets.insert(route.scopes.sorted { $0.text < $1.text })
            routes.append(route)
        }
        if sets.count >= ScopeRequirements.countMax {
            value.problem("more than \(ScopeRequirements.countMax - 1) different sets of scopes")
        }
        return routes
    }

    /// Paths that match the same requests have the same shape.
    private static func shape(of path: String) -> String {
        path.split(separator: "/").map { $0.hasPrefix("{") ? "*" : String($0) }.joined(separator: "/")
    }

    private static func readOne(_ value: Value, upstreams: [String]) -> RouteConfiguration? {
        guard let section = value.section() else { return nil }
        defer { section.finish() }
        let path = section.required("path", "a route").flatMap(routePath)
        let methods = section["methods"].map(readMethods) ?? []
        let scopes = section["scopes"].map(readScopes) ?? []
        let isPublic = section["access"]?.choice([("public", true), ("key", false)]) ?? false
        if isPublic, !scopes.isEmpty { section["scopes"]?.problem("a public route has no scopes") }
        var upstream: Int?
        if let name = section.required("upstream", "a route"), let text = name.nonEmptyText() {
            upstream = upstreams.firstIndex(of: text)
            if upstream == nil {
                name.problem("unknown upstream \"\(text)\"" + Suggestion.text(for: text, among: upstreams))
            }
        }
        let label = section["name"].flatMap(readLabel)
        let cost = section["cost"]?.integer(in: 1...1_000) ?? 1
        let forwardsAuthorization = section["forward_authorization"]?.bool() ?? false
        let host = section["host"].flatMap(readHost)
        let strip = section["strip_prefix"].flatMap(UpstreamSection.requestPath)
        let add = section["add_prefix"].flatMap(UpstreamSection.requestPath)
        let body = section["body"]?.size(in: 0...Int.max)
        let timeout = section["response_timeout"]?.duration(in: 1...86_400_000)
        guard let path, let upstream else { return nil }
        return RouteConfiguration(
            name: label ?? path, path: path, methods: methods, isPublic: isPublic, scopes: scopes,
            upstream: upstream, cost: Int64(cost), forwardAuthorization: forwardsAuthorization, host: host,
            stripPrefix: strip, addPrefix: add, bodyBytes: body.map(Int64.init),
            responseTimeoutMilliseconds: timeout)
    }

    /// `/a/b`, `/a/*/c`, `/a/{id}`, `/a/**`.
    static func routePath(_ value: Value) -> String? {
        guard let text = UpstreamSection.requestPath(value) else { return nil }
        guard text.utf8.count <= 1_024 else {
            value.problem("a route's path has at most 1,024 bytes")
            return nil
        }
        let segments = text.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
        for (index, segment) in segments.enumerated() {
            let isLast = index == segments.count - 1
            if segment.isEmpty, isLast { continue }
            if segment == "**" {
                guard isLast else {
                    value.problem("\"**\" stands only at the end of a path")
                    return nil
                }
            } else if segment == "*" || segment.hasPrefix("{") && segment.hasSuffix("}") && segment.count > 2
            {
                continue
            } else if segment.isEmpty || segment == "." || segment == ".."
                || segment.contains(where: { "*{}?#%\\".contains($0) })
            {
                value.problem(
                    "\"\(segment)\" in \"\(text)\" is not a segment: a plain word, * or {name} for any, "
                        + "** for the rest"
                )
                return nil
            }
        }
        return text
    }

    private static func readMethods(_ value: Value) -> [String] {
        value.listOrOne().compactMap { item in
            guard let text = item.nonEmptyText() else { return nil }
            guard methods.contains(text) else {
                item.problem("unknown method \"\(text)\"" + Suggestion.text(for: text, among: methods))
                return nil
            }
            return text
        }
    }

    private static func readScopes(_ value: Value) -> [Scope] {
        var scopes: [Scope] = []
        for item in value.listOrOne() {
            guard let text = item.nonEmptyText() else { continue }
            guard let scope = Scope(text) else {
                item.problem("\"\(text)\" is not a scope like projects:read")
                continue
            }
            if !scopes.contains(scope) { scopes.append(scope) }
        }
        if scopes.count > ScopeSet.countMax { value.problem("more than \(ScopeSet.countMax) scopes") }
        return scopes
    }

    private static func readLabel(_ value: Value) -> String? {
        guard let text = value.nonEmptyText() else { return nil }
        guard text.utf8.count <= 128,
            text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F && $0 != 34 && $0 != 92 })
        else {
            value.problem("a route's name is up to 128 printable characters")
            return nil
        }
        return text
    }

    private static func readHost(_ value: Value) -> String? {
        guard let text = value.nonEmptyText() else { return nil }
        let host = Addresses.split(text)?.host ?? text
        guard Addresses.isHost(host) else {
            value.problem("\"\(text)\" is not a host name")
            return nil
        }
        return text
    }
}
