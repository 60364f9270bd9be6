import Configuration
import DataPlane
import Limits
import Reactor
import TLS

// Who may do what on the admin listener. Programs send the token itself; a browser sends it once and gets a
// session. A page elsewhere in the same browser gets nothing: it cannot read the cookie (HttpOnly) or have it
// sent (SameSite=Strict), does not know the session's second secret that every change must carry, and a name
// of its own that it points at this listener is no name of this listener's.

/// What somebody may do.
enum AdminRole: String, Sendable {
    case read, write
}

/// Somebody who has proved who they are.
struct AdminCaller: Sendable {
    var role: AdminRole
    /// Behind a session; else the token came with the request.
    var isSession: Bool
}

/// Why somebody gets no further.
struct AdminRefusal: Error {
    var answer: SmallAnswer

    init(_ status: Int, _ code: String, _ message: String, _ fields: [(name: String, value: String)] = []) {
        answer = SmallAnswer(status, code: code, message)
        answer.fields = fields
    }
}

/// The digest of a token or session secret. Two are compared without telling by the time taken how far they
/// agree.
struct SecretDigest: Hashable, Sendable {
    private let words: SIMD4<UInt64>

    init(_ text: String, _ digester: Digester) {
        let (a, b, c, d) = digester.sha256(Array(text.utf8).span)
        words = SIMD4(a, b, c, d)
    }

    func isSame(as other: SecretDigest) -> Bool {
        let difference = words ^ other.words
        return difference[0] | difference[1] | difference[2] | difference[3] == 0
    }
}

/// Decides about every request; on the control thread alone.
final class AdminAccess {
    static let cookieName = "gateway_session"
    static let csrfField = "X-CSRF-Token"
    /// People, each with a few browsers; the one unused longest makes room.
    private static let sessionsMax = 256
    /// A session ends so long after its last request, and in any case so long after it began; microseconds.
    private static let idleMicroseconds: Int64 = 3_600_000_000
    private static let lifetimeMicroseconds: Int64 = 12 * 3_600_000_000
    /// Wrong tokens from one address in a minute.
    private static let failuresPerMinute: Int64 = 10

    struct Session {
        var role: AdminRole
        var csrf: String
        var startedMicroseconds: Int64
        var usedMicroseconds: Int64
    }

    private let digester: Digester
    /// Told of every wrong token, without it.
    private let whenFailed: (SocketAddress) -> Void
    private let failures = FailureLimiter(limitPerMinute: failuresPerMinute, addresses: 4_096)
    private var token: SecretDigest?
    private var readToken: SecretDigest?
    private var hosts: Set<String> = []
    private var sessions: [SecretDigest: Session] = [:]
    /// Addresses that may not sign in before an instant.
    private var blockedUntil: [String: Int64] = [:]

    init(
        _ configuration: AdminConfiguration, whenFailed: @escaping (SocketAddress) -> Void
    ) throws(ServerProblem) {
        self.whenFailed = whenFailed
        do {
            digester = try Digester()
        } catch {
            throw ServerProblem(error.message)
        }
        adopt(configuration)
    }

    /// Goes over to other tokens; sessions of those that are gone end.
    func adopt(_ configuration: AdminConfiguration) {
        let newToken = configuration.token.map { SecretDigest($0.reveal(), digester) }
        let newReadToken = configuration.readToken.map { SecretDigest($0.reveal(), digester) }
        if newToken != token { sessions = sessions.filter { $0.value.role != .write } }
        if newReadToken != readToken { sessions = sessions.filter { $0.value.role != .read } }
        token = newToken
        readToken = newReadToken
        hosts = Set(configuration.hosts)
    }

    /// Without a token there is no way in.
    var isOpen: Bool { token != nil }

    // MARK: Host

    /// Refuses a request that was sent to a name which is not this listener's: a browser that was led here by
    /// somebody else's name would send it.
    func checkHost(_ request: SmallRequest) throws(AdminRefusal) {
        guard let host = request.field("host"), isOwnName(host) else {
            throw AdminRefusal(
                421, "MISDIRECTED_REQUEST",
                "This listener is not known by that name: use an address, or list the name under admin.hosts."
            )
        }
    }

    private func isOwnName(_ host: String) -> Bool {
        var name = host[...]
        if let colon = name.lastIndex(of: ":"), !name.hasSuffix("]") {
            guard name[name.index(after: colon)...].allSatisfy(\.isNumber) else { return false }
            name = name[..<colon]
        }
        if name.hasPrefix("["), name.hasSuffix("]") {
            return SocketAddress(ip: String(name.dropFirst().dropLast()), port: 0) != nil
        }
        let lower = name.lowercased()
        return lower == "localhost" || hosts.contains(lower) || SocketAddress(ip: lower, port: 0) != nil
    }

    // MARK: Tokens

    /// Who sends a request, by token or by session.
    func caller(_ request: SmallRequest, nowMicroseconds now: Int64) throws(AdminRefusal) -> AdminCaller {
        guard isOpen else { throw Self.closed }
        if request.field("authorization") != nil {
            guard request.count(of: "authorization") == 1, let sent = Self.bearer(request),
                let role = role(of: sent)
            else { throw failed(request, now) }
            return AdminCaller(role: role, isSession: false)
        }
        guard let session = session(request, now) else {
            throw AdminRefusal(
                401, "UNAUTHORIZED", "Sign in, or send the admin token as Authorization: Bearer.",
                [("WWW-Authenticate", "Bearer realm=\"admin\"")])
        }
        if request.method != "GET", request.method != "HEAD" { try checkSameOrigin(request, session) }
        return AdminCaller(role: session.role, isSession: true)
    }

    static let closed = AdminRefusal(
        403, "ADMIN_DISABLED",
        "The admin API is closed: name a file with a token under admin.token_file.")

    private static func bearer(_ request: SmallRequest) -> String? {
        guard let value = request.field("authorization") else { return nil }
        let parts = value.split(separator: " ", maxSplits: 1)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else { return nil }
        return String(parts[1].drop { $0 == " " })
    }

    private func role(of sent: String) -> AdminRole? {
        let digest = SecretDigest(sent, digester)
        // Both are compared in every case.
        let isWrite = token.map { $0.isSame(as: digest) } ?? false
        let isRead = readToken.map { $0.isSame(as: digest) } ?? false
        return isWrite ? .write : isRead ? .read : nil
    }

    /// A wrong token: 401, or 429 to an address that fails too often. The right one from there keeps working.
    private func failed(_ request: SmallRequest, _ now: Int64) -> AdminRefusal {
        whenFailed(request.peer)
        let until = failures.recordFailure(prefix: request.peer.rateLimitPrefix, nowMicroseconds: now)
        if until > 0 { return Self.tooMany(until, now) }
        return AdminRefusal(
            401, "UNAUTHORIZED", "The admin token is wrong.",
            [("WWW-Authenticate", "Bearer realm=\"admin\", error=\"invalid_token\"")])
    }

    private static func tooMany(_ until: Int64, _ now: Int64) -> AdminRefusal {
        let seconds = max(1, (until - now + 999_999) / 1_000_000)
        return AdminRefusal(
            429, "RATE_LIMIT_EXCEEDED",
            "Too many wrong tokens. Try again in \(seconds) second\(seconds == 1 ? "" : "s").",
            [("Retry-After", "\(seconds)")])
    }

    // MARK: Sessions

    /// Exchanges a token for a session.
    ///
    /// Unlike calls with a token, signing in is refused outright to an address that failed too often.
    /// - Returns: the session, and the cookie's value.
    func signIn(
        _ sent: String, _ request: SmallRequest, nowMicroseconds now: Int64
    ) throws(AdminRefusal) -> (session: Session, secret: String) {
        guard isOpen else { throw Self.closed }
        try checkFetchSite(request)
        let address = request.peer.ipText
        if let until = blockedUntil[address], until > now { throw Self.tooMany(until, now) }
        guard let role = role(of: sent) else {
            let refusal = failed(request, now)
            if refusal.answer.status == 429 { block(address, now) }
            throw refusal
        }
        let secret = Self.secret()
        let session = Session(
            role: role, csrf: Self.secret(), startedMicroseconds: now, usedMicroseconds: now)
        if sessions.count >= Self.sessionsMax,
            let oldest = sessions.min(by: { $0.value.usedMicroseconds < $1.value.usedMicroseconds })
        {
            sessions[oldest.key] = nil
        }
        sessions[SecretDigest(secret, digester)] = session
        return (session, secret)
    }

    private func block(_ address: String, _ now: Int64) {
        if blockedUntil.count >= 4_096 { blockedUntil = blockedUntil.filter { $0.value > now } }
        if blockedUntil.count >= 4_096 { blockedUntil.removeAll() }
        blockedUntil[address] = now + 60_000_000
    }

    /// The session behind a request's cookie, if it still lives.
    func session(_ request: SmallRequest, _ now: Int64) -> Session? {
        guard let digest = cookie(request), var session = sessions[digest] else { return nil }
        guard now - session.usedMicroseconds < Self.idleMicroseconds,
            now - session.startedMicroseconds < Self.lifetimeMicroseconds
        else {
            sessions[digest] = nil
            return nil
        }
        session.usedMicroseconds = now
        sessions[digest] = session
        return session
    }

    /// Ends the session behind a request's cookie.
    func signOut(_ request: SmallRequest, nowMicroseconds now: Int64) throws(AdminRefusal) {
        guard let session = session(request, now) else { return }
        try checkSameOrigin(request, session)
        if let digest = cookie(request) { sessions[digest] = nil }
    }

    private func cookie(_ request: SmallRequest) -> SecretDigest? {
        for field in request.fields where field.name.lowercased() == "cookie" {
            for part in field.value.split(separator: ";") {
                let pair = part.drop { $0 == " " }
                if pair.hasPrefix(Self.cookieName + "=") {
                    return SecretDigest(String(pair.dropFirst(Self.cookieName.count + 1)), digester)
                }
            }
        }
        return nil
    }

    /// `Set-Cookie` for a session; nil takes it away. There is no `Secure`: the listener speaks plain HTTP.
    static func setCookie(_ secret: String?) -> String {
        let age = secret == nil ? 0 : lifetimeMicroseconds / 1_000_000
        return "\(cookieName)=\(secret ?? ""); Path=/; Max-Age=\(age); HttpOnly; SameSite=Strict"
    }

    /// What a session's request to change something must show: that it comes from this listener's own page.
    private func checkSameOrigin(_ request: SmallRequest, _ session: Session) throws(AdminRefusal) {
        try checkFetchSite(request)
        let sent = request.field(Self.csrfField.lowercased()) ?? ""
        guard SecretDigest(sent, digester).isSame(as: SecretDigest(session.csrf, digester)) else {
            throw AdminRefusal(
                403, "CSRF_TOKEN_REQUIRED", "A session's changes must carry its \(Self.csrfField).")
        }
    }

    /// Browsers say where a request comes from; other programs say nothing.
    private func checkFetchSite(_ request: SmallRequest) throws(AdminRefusal) {
        let site = request.field("sec-fetch-site") ?? "same-origin"
        let origin = request.field("origin")
        let isOwn = origin.map { $0.hasSuffix("://" + (request.field("host") ?? "")) } ?? true
        guard isOwn, site == "same-origin" || site == "none" else {
            throw AdminRefusal(403, "CROSS_SITE_REQUEST", "Another site's page may not do this.")
        }
    }

    /// 192 random bits.
    private static func secret() -> String {
        RandomSource.bytes(24).map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
    }
}
