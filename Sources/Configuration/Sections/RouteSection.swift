import Keys

/// `routes`.
enum RouteSection {
    /// Routes are a label of the metrics and a row in the router.
    static let routesMax = 1_000
    static let pathBytesMax = 1_024
    static let labelBytesMax = 128
    static let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"]

    static func read(_ value: Value, upstreams: [String]) -> [RouteConfiguration] {
        var routes: [RouteConfiguration] = []
        var seen: [String: Int] = [:]
        let items = value.list()
        if value.isEmptyList { value.problem("at least one route is needed") }
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
        guard let section = value.section(RouteKeys.description) else { return nil }
        defer { section.finish() }
        let path = section.required("path", "a route").flatMap(routePath)
        let methods = section["methods"].map(readMethods) ?? []
        let scopes = section["scopes"].map(readScopes) ?? []
        let isPublic = RouteKeys.isPublic.value(in: section)
        if isPublic, !scopes.isEmpty { section["scopes"]?.problem("a public route has no scopes") }
        var upstream: Int?
        if let name = section.required("upstream", "a route"), let text = name.text() {
            upstream = upstreams.firstIndex(of: text)
            if upstream == nil {
                name.problem(
                    "unknown upstream \"\(name.written)\"" + Suggestion.text(for: text, among: upstreams))
            }
        }
        let label = section["name"].flatMap(readLabel)
        let cost = RouteKeys.cost.value(in: section)
        let forwardsAuthorization = RouteKeys.forwardAuthorization.value(in: section)
        let host = section["host"].flatMap(readHost)
        let strip = section["strip_prefix"].flatMap(Paths.prefix)
        if let strip, let path, !begins(path, with: strip) {
            section["strip_prefix"]?.problem("no request to this route begins so")
        }
        let add = section["add_prefix"].flatMap(Paths.prefix)
        let body = RouteKeys.body.value(in: section)
        let timeout = RouteKeys.responseTimeout.value(in: section)
        let idle = RouteKeys.idleTimeout.value(in: section)
        guard let path, let upstream else { return nil }
        return RouteConfiguration(
            name: label ?? path, path: path, methods: methods, isPublic: isPublic, scopes: scopes,
            upstream: upstream, cost: Int64(cost), forwardAuthorization: forwardsAuthorization, host: host,
            stripPrefix: strip, addPrefix: add, bodyBytes: body.map(Int64.init),
            responseTimeoutMilliseconds: timeout, idleTimeoutMilliseconds: idle)
    }

    /// `/a/b`, `/a/*/c`, `/a/{id}`, `/a/**`.
    static func routePath(_ value: Value) -> String? {
        guard let text = Paths.request(value) else { return nil }
        guard text.utf8.count <= pathBytesMax else {
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
            } else if segment != "*", !isParameter(segment), !Paths.isPlainSegment(segment) {
                let shown = value.isFilledIn ? "a segment" : "\"\(Shown.text(String(segment)))\""
                value.problem(
                    "\(shown) in \"\(value.written)\" is not a plain word, * or {name} for any, "
                        + "** for the rest"
                )
                return nil
            }
        }
        return text
    }

    /// `{id}`: letters, digits and underscores.
    private static func isParameter(_ segment: Substring) -> Bool {
        segment.hasPrefix("{") && segment.hasSuffix("}") && segment.count > 2
            && segment.dropFirst().dropLast().utf8.allSatisfy { Bytes.isLetterOrDigit($0) || $0 == 95 }
    }

    /// Whether some request that the route matches begins with the segments of `prefix`.
    private static func begins(_ path: String, with prefix: String) -> Bool {
        let segments = path.split(separator: "/")
        for (index, wanted) in prefix.split(separator: "/").enumerated() {
            guard index < segments.count else { return false }
            if segments[index] == "**" { return true }
            guard segments[index] == wanted || segments[index] == "*" || isParameter(segments[index]) else {
                return false
            }
        }
        return true
    }

    /// No key means all methods; an empty list would mean none, which is no route.
    private static func readMethods(_ value: Value) -> [String] {
        if value.isEmptyList { value.problem("an empty list; without \"methods\" a route takes all") }
        return value.listOrOne().compactMap { item in
            guard let text = item.text() else { return nil }
            guard methods.contains(text) else {
                item.problem(
                    "unknown method \"\(item.written)\"" + Suggestion.text(for: text, among: methods))
                return nil
            }
            return text
        }
    }

    /// Scopes of a route or of a static key.
    static func readScopes(_ value: Value) -> [Scope] {
        var scopes: [Scope] = []
        for item in value.listOrOne() {
            guard let text = item.text() else { continue }
            guard let scope = Scope(text) else {
                item.problem("\"\(item.written)\" is not a scope like projects:read")
                continue
            }
            if !scopes.contains(scope) { scopes.append(scope) }
        }
        if scopes.count > ScopeSet.countMax { value.problem("more than \(ScopeSet.countMax) scopes") }
        return scopes
    }

    private static func readLabel(_ value: Value) -> String? {
        guard let text = value.text() else { return nil }
        guard text.utf8.count <= labelBytesMax,
            text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F && $0 != 34 && $0 != 92 })
        else {
            value.problem("a route's name is up to \(labelBytesMax) printable characters")
            return nil
        }
        return text
    }

    private static func readHost(_ value: Value) -> String? {
        guard let text = value.text() else { return nil }
        guard Addresses.hostAndPort(text[...], port: 443) != nil else {
            value.problem("\"\(value.written)\" is not a host name")
            return nil
        }
        return text
    }
}

enum RouteKeys {
    static let isPublic = Setting.choice(
        "access", [("public", true), ("key", false)], default: "key",
        "`public` needs no key and has no limit")
    static let cost = Setting.integer("cost", in: 1...1_000, default: 1, "permits that a call takes")
    static let forwardAuthorization = Setting.flag(
        "forward_authorization", default: false, "passes the caller's `Authorization` on")
    static let body = Setting.size(
        "body", in: 0...Int.max, default: "`limits.body`", "the longest body of a request")
    static let responseTimeout = Setting.duration(
        "response_timeout", in: 1...86_400_000, default: "the upstream's",
        "until the answer's head, and between two arrivals of its body")
    static let idleTimeout = Setting.duration(
        "idle_timeout", in: 1...86_400_000,
        default: "the response timeout, at least 5m for what is silent by nature",
        "longest silence once an answer has begun, and of a WebSocket; event streams and gRPC are silent by "
            + "nature, too")

    static let description = SectionDescription(
        "routes[]",
        "What a path needs and where it goes. The most specific path wins, whatever the order: a word beats "
            + "`*` or `{name}`, which beats `**`.",
        [
            .key(
                "path", "path of at most \(RouteSection.pathBytesMax) bytes", default: nil,
                "`*` or `{name}` stands for one segment, `**` at the end for the rest"),
            .key(
                "methods",
                "one or a list of " + RouteSection.methods.map { "`\($0)`" }.joined(separator: ", "),
                default: "all", "`GET` serves `HEAD` too"),
            .key(
                "scopes", "one or a list of scopes", default: "any valid key will do",
                "all of them are needed; at most \(ScopeSet.countMax)"),
            isPublic.description,
            .key("upstream", "name of an upstream", default: nil, "where the call goes"),
            .key(
                "name", "up to \(RouteSection.labelBytesMax) printable characters", default: "the path",
                "for metrics and logs"),
            cost.description, forwardAuthorization.description,
            .key("host", "host name", default: "the caller's", "`Host` as the upstream sees it"),
            .key(
                "strip_prefix", "path of whole segments", default: "nothing",
                "cut off the front of the path before it is forwarded"),
            .key(
                "add_prefix", "path of whole segments", default: "nothing", "put in front of it after that"),
            body.description, responseTimeout.description, idleTimeout.description,
        ])
}
