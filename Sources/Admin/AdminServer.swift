package import Configuration
import Dashboard
package import DataPlane
import KeyManagement
import Keys
package import Reactor

/// The admin listener: plain HTTP on an address that only operators reach, served by the control loop, so
/// that a scrape or a slow client cannot touch a worker.
///
/// `/livez`, `/readyz` and `/metrics` are open to everybody who gets here. `/v1` is the API, described by
/// `/openapi.json`; whatever of it needs the store is served by a thread of its own. `/` is the dashboard,
/// which is a client of the API like any other.
package final class AdminServer {
    /// Tokens from here on are this server's; the control loop gives lower ones to others.
    package static let firstToken: UInt64 = 1_000
    /// Scrapers, probes and a few people.
    private static let connectionsMax = 128
    /// A record's fields at their longest, several times over.
    private static let bodyBytesMax = 65_536

    private let server: GatewayServer
    private let facts: () -> MetricsFacts
    private let reload: () -> ReloadOutcome
    private let access: AdminAccess
    private let desk: KeyDesk
    private let metrics: MetricsText
    private var small: SmallServer?
    private var history = History()
    private var mask: KeyMask?

    /// Binds the address and joins the control loop.
    ///
    /// - Parameter reload: reads the configuration again when somebody asks for it.
    /// - Throws: `ServerProblem`.
    package init(
        _ admin: AdminConfiguration, server: GatewayServer, poller: Poller,
        reload: @escaping () -> ReloadOutcome, facts: @escaping () -> MetricsFacts
    ) throws(ServerProblem) {
        self.server = server
        self.facts = facts
        self.reload = reload
        metrics = MetricsText(server)
        mask = KeyFormat(prefixes: server.plan.configuration.keys.prefixes).map(KeyMask.init)
        access = try AdminAccess(admin) { peer in
            server.shared.report(.warning, "admin: a wrong token from \(peer.ipText)", every: 60)
        }
        do {
            desk = try KeyDesk(server)
            try poller.add(desk.wakeup.descriptor, token: Self.firstToken, .read)
        } catch {
            throw ServerProblem("the system refuses an event descriptor: \(error.reason)")
        }
        let inherited = SocketAddress.parse(admin.address).flatMap {
            server.inherited.take($0, named: ListenerName.admin.rawValue).first
        }
        small = try SmallServer(
            address: admin.address, inherited: inherited, poller: poller, firstToken: Self.firstToken + 1,
            connectionsMax: Self.connectionsMax, bodyBytesMax: Self.bodyBytesMax
        ) { [unowned self] request in
            do throws(AdminRefusal) {
                return try answer(request).map(finished)
            } catch {
                return finished(error.answer)
            }
        }
    }

    package var address: SocketAddress? { small?.address }

    /// The listener has no TLS: beyond this machine, whoever listens in learns the token.
    private func warnOfReach() {
        guard access.isOpen, let address, !address.ipText.hasPrefix("127."), address.ipText != "::1" else {
            return
        }
        server.shared.report(
            .warning,
            "admin: \(address) is not a loopback address, and the token crosses the network in clear: "
                + "put TLS in front, or listen on 127.0.0.1", every: 3_600)
    }

    /// Starts the thread that may wait for the store.
    package func start() throws(ServerProblem) {
        warnOfReach()
        do {
            try desk.start()
        } catch {
            throw ServerProblem("the system refuses a thread: \(error.reason)")
        }
    }

    /// Ends that thread.
    package func stop() { desk.stop() }

    /// Goes over to the tokens and names of another configuration; the address stays.
    package func adopt(_ configuration: GatewayConfiguration) {
        if let admin = configuration.admin { access.adopt(admin) }
        mask = KeyFormat(prefixes: configuration.keys.prefixes).map(KeyMask.init)
    }

    /// The socket with its name, for a process that takes over.
    package var namedSocket: (name: String, descriptor: Descriptor) {
        (ListenerName.admin.rawValue, small?.socket ?? .none)
    }

    /// Leaves new clients to the process that has taken over.
    package func stopListening() { small?.stopListening() }

    package func handle(_ event: Event, nowMicroseconds: Int64) {
        guard event.token == Self.firstToken else {
            small?.handle(event, nowMicroseconds: nowMicroseconds)
            return
        }
        for done in desk.takeAnswers() {
            if let keys = done.memoryKeys { server.serve(memoryKeys: keys) }
            small?.answer(done.ticket, finished(done.answer), nowMicroseconds: nowMicroseconds)
        }
    }

    package func tick(nowMicroseconds: Int64) {
        small?.tick(nowMicroseconds: nowMicroseconds)
        if access.isOpen { history.tick(server, nowMicroseconds: nowMicroseconds) }
    }

    /// Nothing here may be kept by anybody, embedded elsewhere, or taken for another type than it says.
    private func finished(_ answer: SmallAnswer) -> SmallAnswer {
        var answer = answer
        // What is said of a mistake repeats it, and a key is pasted into the wrong field easily.
        if answer.status >= 400, let mask { answer.body = mask.mask(answer.body) }
        answer.fields += [
            ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "same-origin"), ("Referrer-Policy", "no-referrer"),
        ]
        return answer
    }

    /// - Returns: nil when the answer comes later.
    private func answer(_ request: SmallRequest) throws(AdminRefusal) -> SmallAnswer? {
        switch request.path {
        case "/livez", "/readyz", "/metrics":
            guard Self.isRead(request) else {
                throw Self.notAllowed(["GET", "HEAD"])
            }
            return probe(request)
        default: break
        }
        try access.checkHost(request)
        if request.path == "/session" { return try session(request) }
        if let page = DashboardFile(path: request.path) {
            guard Self.isRead(request) else { throw Self.notAllowed(["GET", "HEAD"]) }
            return page.answer
        }
        return try call(request)
    }

    private static func isRead(_ request: SmallRequest) -> Bool {
        request.method == "GET" || request.method == "HEAD"
    }

    private static func notAllowed(_ methods: [String]) -> AdminRefusal {
        AdminRefusal(
            405, "METHOD_NOT_ALLOWED", "This resource does not support this method.",
            [("Allow", methods.joined(separator: ", "))])
    }

    // MARK: The API

    private func call(_ request: SmallRequest) throws(AdminRefusal) -> SmallAnswer? {
        let (endpoint, name) = try Self.endpoint(request)
        let caller = try access.caller(request, nowMicroseconds: MonotonicClock.nowMicroseconds())
        guard caller.role == .write || !endpoint.changesSomething else {
            throw AdminRefusal(403, "FORBIDDEN", "This token may read, but change nothing.")
        }
        let actor = Actor(
            name: caller.isSession ? "dashboard" : "admin-api", origin: request.peer.ipText)
        let call = try APIRequest(endpoint, name: name, request, actor)
        switch endpoint {
        case .readStatus:
            return SmallAnswer(
                200, "application/json", StatusDocument.render(server, facts(), history, role: caller.role))
        case .readConfiguration: return configuration()
        case .reload: return try reloaded()
        default: break
        }
        guard desk.submit(call) else {
            throw AdminRefusal(
                503, "SERVICE_UNAVAILABLE", "Too many requests wait for the store. Try again shortly.",
                [("Retry-After", "1")])
        }
        return nil
    }

    /// What is in force, every default filled in and without secrets.
    private func configuration() -> SmallAnswer {
        var json = JSONWriter()
        json.object(nil) { json in
            json.object("settings") { json in
                for entry in server.accepted.listing { json.string(entry.name, entry.value) }
            }
        }
        return SmallAnswer(200, "application/json", json.text + "\n")
    }

    private func reloaded() throws(AdminRefusal) -> SmallAnswer {
        let outcome = reload()
        guard outcome.isAccepted else {
            throw AdminRefusal(
                422, "CONFIGURATION_REFUSED",
                "Nothing has changed: \(outcome.problems.joined(separator: "; "))")
        }
        var json = JSONWriter()
        json.object(nil) { json in
            json.array("warnings") { json in for text in outcome.warnings { json.string(nil, text) } }
        }
        return SmallAnswer(200, "application/json", json.text + "\n")
    }

    private static func endpoint(
        _ request: SmallRequest
    ) throws(AdminRefusal) -> (endpoint: Endpoint, name: String) {
        guard let segments = APIRequest.segments(request.path) else {
            throw APIRequest.bad("The path holds a broken escape.")
        }
        let method = request.method == "HEAD" ? "GET" : request.method
        var allowed: [String] = []
        for endpoint in Endpoint.allCases {
            guard let name = endpoint.match(segments) else { continue }
            if endpoint.method == method { return (endpoint, name) }
            allowed += endpoint.method == "GET" ? ["GET", "HEAD"] : [endpoint.method]
        }
        guard allowed.isEmpty else { throw notAllowed(allowed) }
        throw AdminRefusal(404, "NOT_FOUND", "No such resource.")
    }

    // MARK: Sessions of the dashboard

    private func session(_ request: SmallRequest) throws(AdminRefusal) -> SmallAnswer {
        let now = MonotonicClock.nowMicroseconds()
        switch request.method {
        case "GET", "HEAD":
            guard access.isOpen else { throw AdminAccess.closed }
            guard let session = access.session(request, now) else {
                throw AdminRefusal(401, "UNAUTHORIZED", "There is no session: sign in.")
            }
            return Self.shown(session)
        case "POST":
            guard request.field("content-type")?.hasPrefix("application/json") ?? false else {
                throw AdminRefusal(
                    415, "UNSUPPORTED_MEDIA_TYPE", "The body must be application/json (Content-Type).")
            }
            guard case .object(let members)? = try? JSONReader.read(request.body),
                case .string(let token)? = members["token"]
            else { throw APIRequest.bad("The body must be a JSON object with the token.") }
            let (session, secret) = try access.signIn(token, request, nowMicroseconds: now)
            var answer = Self.shown(session)
            answer.fields.append(("Set-Cookie", AdminAccess.setCookie(secret)))
            return answer
        case "DELETE":
            try access.signOut(request, nowMicroseconds: now)
            var answer = SmallAnswer(204, "", "")
            answer.fields.append(("Set-Cookie", AdminAccess.setCookie(nil)))
            return answer
        default: throw Self.notAllowed(["GET", "HEAD", "POST", "DELETE"])
        }
    }

    private static func shown(_ session: AdminAccess.Session) -> SmallAnswer {
        var json = JSONWriter()
        json.object(nil) { json in
            json.string("role", session.role.rawValue)
            json.string("csrf_token", session.csrf)
        }
        return SmallAnswer(200, "application/json", json.text + "\n")
    }

    // MARK: Probes

    private func probe(_ request: SmallRequest) -> SmallAnswer {
        switch request.path {
        case "/livez": return SmallAnswer(200, "text/plain", "ok\n")
        case "/readyz": return readiness
        default:
            let wantsOpenMetrics = request.field("accept")?.contains("application/openmetrics-text") ?? false
            return SmallAnswer(
                200,
                wantsOpenMetrics
                    ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                    : "text/plain; version=0.0.4; charset=utf-8",
                metrics.render(facts(), wantsOpenMetrics: wantsOpenMetrics))
        }
    }

    /// 503 while starting and draining; a store that is away is only a warning while a degraded mode serves.
    private var readiness: SmallAnswer {
        switch server.phase {
        case .starting: return SmallAnswer(503, "application/json", "{\"status\":\"starting\"}\n")
        case .draining, .stopped: return SmallAnswer(503, "application/json", "{\"status\":\"draining\"}\n")
        case .serving:
            if server.isStoreUp { return SmallAnswer(200, "application/json", "{\"status\":\"ok\"}\n") }
            let isClosed = server.plan.configuration.store.onOutage == .closed
            return SmallAnswer(
                isClosed ? 503 : 200, "application/json",
                "{\"status\":\"\(isClosed ? "unavailable" : "warn")\",\"store\":\"unreachable\"}\n")
        }
    }
}

extension DashboardFile {
    /// Nothing but what this listener serves itself may run, style or be spoken to.
    private static let policy =
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        + "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

    fileprivate var answer: SmallAnswer {
        var answer = SmallAnswer(200, type, bytes)
        guard type.hasPrefix("text/html") else { return answer }
        answer.fields = [
            ("Content-Security-Policy", Self.policy), ("Cross-Origin-Opener-Policy", "same-origin"),
            ("X-Frame-Options", "DENY"),
        ]
        return answer
    }
}
