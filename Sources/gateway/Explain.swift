import ArgumentParser
import Configuration
import DataPlane
import KeyManagement
import Keys
import Limits
import Reactor

struct Explain: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Say what would become of a call, and why.",
        discussion: """
            Which route it takes, which scopes that needs, what the account's windows hold and what would be \
            answered. Nothing is sent and no permit is spent.

            Example: gateway explain --key-id key_0123456789abcdef GET /api/projects
            """)

    @OptionGroup var options: KeysCommand.Options
    @Option(help: "The id of the key that calls; without it, a call without a key.") var keyID: String?
    @Argument(help: "The method, like GET.") var method: String
    @Argument(help: "The path, with or without a query.") var target: String

    func validate() throws {
        guard target.hasPrefix("/") else { throw ValidationError("The path begins with a slash.") }
    }

    func run() throws {
        let (store, configuration) = try options.open()
        let finding = RouteFinding.find(method, target, in: configuration.routes)
        let explanation = try KeysCommand.run { () throws(KeyStoreProblem) in
            try Explanation(store, configuration, finding, keyID: keyID)
        }
        Console.out(
            options.output == .json
                ? explanation.json(method: method, target: target)
                : KeyText.table(explanation.rows(method: method, target: target)))
    }
}

/// What would become of one call: decided in the order in which the gateway decides.
private struct Explanation {
    let configuration: GatewayConfiguration
    var path: String?
    var route: RouteConfiguration?
    var verification: Verification?
    var missing: [Scope] = []
    var policy = ""
    var windows: [WindowUse] = []
    var status = 200
    var code: String?
    var reason = ""
    var retryAfter: Int64?

    init(
        _ store: KeyStore, _ configuration: GatewayConfiguration, _ finding: RouteFinding, keyID: String?
    ) throws(KeyStoreProblem) {
        self.configuration = configuration
        switch finding {
        case .malformed(let why):
            answer(400, "BAD_REQUEST", why)
            return
        case .noRoute(let path), .otherMethods(let path, _), .twoRoutes(let path, _): self.path = path
        case .route(let number, let path):
            self.path = path
            route = configuration.routes[number]
        }
        if let route, route.isPublic {
            forward(route, "the route is public: no key is looked at")
            return
        }
        guard let keyID else {
            answer(401, "INVALID_API_KEY", "the route needs a key, and none was sent")
            return
        }
        let verification = try store.verify(id: keyID)
        self.verification = verification
        guard verification.verdict == .valid, let key = verification.key else {
            let problem = verification.problem.map { ": \($0)" } ?? ""
            answer(401, "INVALID_API_KEY", "the key is \(verification.verdict.rawValue)\(problem)")
            return
        }
        guard let route else {
            switch finding {
            case .otherMethods(_, let allow):
                answer(405, "METHOD_NOT_ALLOWED", "the path has routes for \(allow) only")
            case .twoRoutes(_, let why): answer(400, "BAD_REQUEST", why)
            default: answer(404, "NOT_FOUND", "no route covers this path")
            }
            return
        }
        missing = route.scopes.filter { wanted in
            !key.record.scopes.scopes.contains { $0.covers(wanted) }
        }
        guard missing.isEmpty else {
            let names = missing.map(\.text).joined(separator: ", ")
            answer(403, "INSUFFICIENT_PERMISSIONS", "the key lacks \(names)")
            return
        }
        try limit(store, key, route)
    }

    private mutating func limit(
        _ store: KeyStore, _ key: StoredKey, _ route: RouteConfiguration
    ) throws(KeyStoreProblem) {
        guard let (name, limits) = store.policy(of: key) else { return }
        policy = name
        guard !store.isMemory else {
            forward(route, "if the account has a permit left: each gateway keeps its windows in memory")
            return
        }
        windows = try store.use(limits, account: key.record.account, cost: route.cost)
        var wait: Int64 = 0
        for use in windows {
            guard let fits = use.fitsInMicroseconds else {
                answer(429, "RATE_LIMIT_EXCEEDED", "a call costs \(route.cost), which the limit never allows")
                return
            }
            wait = max(wait, fits)
        }
        guard wait == 0 else {
            let seconds = retryAfterSeconds(nowMicroseconds: 0, retryMicroseconds: wait)
            retryAfter = seconds
            var why = "the account has no permit left for \(seconds) s"
            // Before a gateway refuses it calls back what others hold.
            let fits = windows.allSatisfy { $0.used - $0.leased + route.cost <= $0.window.limit }
            if fits {
                why +=
                    ", unless gateways give some back of the"
                    + " \(windows.map(\.leased).max() ?? 0) that they hold on lease"
            }
            answer(429, "RATE_LIMIT_EXCEEDED", why)
            return
        }
        forward(route, "the key may, and the account has a permit left")
    }

    private mutating func forward(_ route: RouteConfiguration, _ why: String) {
        reason = "forwarded to upstream \(configuration.upstreams[route.upstream].name): \(why)"
    }

    private mutating func answer(_ status: Int, _ code: String, _ reason: String) {
        self.status = status
        self.code = code
        self.reason = reason
    }

    // MARK: Shown

    private var answerText: String {
        guard let code else { return reason }
        let retry = retryAfter.map { ", Retry-After: \($0)" } ?? ""
        return "\(status) \(code)\(retry): \(reason)"
    }

    func rows(method: String, target: String) -> [[String]] {
        var rows = [["call", "\(method) \(target)"]]
        if let path, path != target { rows.append(["path as matched", path]) }
        if let route {
            rows.append(["route", route.name])
            rows.append(["upstream", configuration.upstreams[route.upstream].name])
            let needed = route.scopes.map(\.text).joined(separator: " ")
            rows.append(["needs", route.isPublic ? "no key" : needed.isEmpty ? "a valid key" : needed])
            if route.cost != 1 { rows.append(["cost", "\(route.cost)"]) }
        } else {
            rows.append(["route", "none"])
        }
        if let verification {
            let about = verification.key.map { " (\(KeyText.summary($0.record)))" } ?? ""
            rows.append(["key", verification.verdict.rawValue + about])
            if let key = verification.key { rows.append(["has", KeyText.scopes(key.record)]) }
        }
        for use in windows {
            let next = use.nextPermitInMicroseconds.map { ", the next freed in \(KeyText.length($0))" } ?? ""
            let length = KeyText.length(use.window.lengthMicroseconds)
            let lease =
                use.leased == 0
                ? ""
                : ", \(use.leased) on lease to \(use.holders.count) gateway"
                    + (use.holders.count == 1 ? "" : "s")
            rows.append([
                "window",
                "\(policy): \(use.remaining) of \(use.window.limit) in \(length) left\(lease)\(next)",
            ])
        }
        rows.append(["answer", answerText])
        return rows
    }

    func json(method: String, target: String) -> String {
        func list(_ scopes: [Scope]) -> String {
            "[" + scopes.map { KeyJSON.string($0.text) }.joined(separator: ",") + "]"
        }
        var members = [
            "\"method\":\(KeyJSON.string(method))", "\"target\":\(KeyJSON.string(target))",
            "\"status\":\(status)", "\"reason\":\(KeyJSON.string(reason))",
        ]
        if let code { members.append("\"code\":\"\(code)\"") }
        if let path { members.append("\"path\":\(KeyJSON.string(path))") }
        if let route {
            members.append("\"route\":\(KeyJSON.string(route.name))")
            members.append("\"upstream\":\(KeyJSON.string(configuration.upstreams[route.upstream].name))")
            members.append("\"needs\":\(list(route.scopes))")
            members.append("\"missing\":\(list(missing))")
            members.append("\"cost\":\(route.cost)")
        }
        if let verification {
            members.append("\"verdict\":\"\(verification.verdict.rawValue)\"")
            if let key = verification.key { members.append("\"record\":\(KeyJSON.object(key))") }
        }
        if !windows.isEmpty {
            members.append("\"policy\":\(KeyJSON.string(policy))")
            members.append("\"windows\":[\(windows.map(\.json).joined(separator: ","))]")
        }
        if let retryAfter { members.append("\"retry_after\":\(retryAfter)") }
        return "{" + members.joined(separator: ",") + "}"
    }
}
