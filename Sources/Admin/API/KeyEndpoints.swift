import KeyManagement
import Keys
import Reactor

/// What the admin API does with keys, accounts and the audit trail, on a thread that may wait for the store.
/// The rules are `KeyStore`'s, so that the command line has the same ones.
struct KeyEndpoints {
    /// Keys and lines of the trail on one page, unless asked for another number.
    private static let pageDefault = 50
    /// A key that is made without `expires_at` ends after 90 days; null says never.
    private static let lifetimeSeconds: Int64 = 90 * 86_400

    private let request: APIRequest
    private let store: KeyStore

    static func answer(
        _ request: APIRequest, store: () throws(KeyStoreProblem) -> KeyStore
    ) -> SmallAnswer {
        do {
            return try KeyEndpoints(request: request, store: try store()).answer()
        } catch let refusal as AdminRefusal {
            return refusal.answer
        } catch let problem as KeyStoreProblem {
            return answer(problem)
        } catch {
            return SmallAnswer(500, code: "INTERNAL", "The request failed.")
        }
    }

    private static func answer(_ problem: KeyStoreProblem) -> SmallAnswer {
        switch problem {
        case .unavailable(let text):
            var answer = SmallAnswer(503, code: "SERVICE_UNAVAILABLE", "The key store failed: \(text)")
            answer.fields.append(("Retry-After", "1"))
            return answer
        case .invalid(let field, _) where ["cursor", "limit"].contains(field):
            return SmallAnswer(400, code: "BAD_REQUEST", problem.text)
        case .invalid: return SmallAnswer(422, code: "INVALID_FIELD", problem.text)
        case .notFound: return SmallAnswer(404, code: "NOT_FOUND", problem.text)
        case .conflict, .refused: return SmallAnswer(409, code: "CONFLICT", problem.text)
        case .changed: return SmallAnswer(412, code: "PRECONDITION_FAILED", problem.text)
        }
    }

    private func answer() throws -> SmallAnswer {
        switch request.endpoint {
        case .listKeys: try list()
        case .createKey: try create()
        case .readKey: Self.shown(try store.find(id: request.name))
        case .updateKey: try update()
        case .revokeKey:
            Self.shown(
                try store.revoke(
                    request.name, reason: try request.text("reason"), version: request.ifMatch,
                    by: request.actor))
        case .disableKey:
            Self.shown(
                try store.disable(
                    request.name, reason: try request.text("reason"), version: request.ifMatch,
                    by: request.actor))
        case .enableKey:
            Self.shown(
                try store.enable(
                    request.name, reason: try request.text("reason"), version: request.ifMatch,
                    by: request.actor))
        case .rotateKey: try rotate()
        case .readAccount: try readAccount()
        case .readAudit: try readAudit()
        case .readStatus, .readConfiguration, .reload:
            SmallAnswer(404, code: "NOT_FOUND", "No such resource.")
        }
    }

    private static func shown(
        _ key: StoredKey, status: Int = 200, secret: String? = nil, isReplay: Bool = false,
        isPassing: Bool = false
    ) -> SmallAnswer {
        let object = KeyJSON.object(key, secret: secret, isReplay: isReplay, isPassing: isPassing)
        var answer = SmallAnswer(status, "application/json", object + "\n")
        answer.fields.append(("ETag", "\"\(key.version)\""))
        return answer
    }

    // MARK: Keys

    private func list() throws -> SmallAnswer {
        var filter = KeyFilter(account: request.query["account"], tier: request.query["tier"])
        if let text = request.query["status"] {
            guard let status = KeyFilter.Status(rawValue: text) else {
                let known = KeyFilter.Status.allCases.map(\.rawValue).joined(separator: ", ")
                throw APIRequest.bad("status: one of \(known).")
            }
            filter.status = status
        }
        filter.text = request.query["q"]
        if let due = request.query["due"] {
            guard due == "true" || due == "false" else { throw APIRequest.bad("due: true or false.") }
            filter.isDue = due == "true"
        }
        let page = try store.list(
            filter, after: request.query["cursor"],
            limit: try request.number("limit", in: 1...KeyStore.pageMax, otherwise: Self.pageDefault))
        return Self.page("keys", page.keys.map { KeyJSON.object($0) }, page.nextCursor)
    }

    private static func page(_ name: String, _ objects: [String], _ nextCursor: String?) -> SmallAnswer {
        let next = nextCursor.map(KeyJSON.string) ?? "null"
        return SmallAnswer(
            200, "application/json",
            "{\"\(name)\":[\(objects.joined(separator: ","))],\"next_cursor\":\(next)}\n")
    }

    private func create() throws -> SmallAnswer {
        guard let tier = try request.text("tier") else {
            throw APIRequest.invalid("tier", "a key needs a tier")
        }
        var expires: Int64? = WallClock.nowSeconds() + Self.lifetimeSeconds
        if request.body["expires_at"] == .null {
            expires = nil
        } else if let given = try request.integer("expires_at") {
            expires = given
        }
        let wanted = KeyRequest(
            account: try request.text("account"), tier: tier, scopes: try scopes() ?? .none,
            name: try request.text("name"), expiresAtSeconds: expires, limits: try request.text("limits"))
        let idempotency = request.idempotencyKey.map {
            Idempotency(key: $0, request: request.rawBody)
        }
        let created = try store.create(wanted, idempotency: idempotency, by: request.actor)
        var answer = Self.shown(
            created.key, status: created.isReplay ? 200 : 201, secret: created.reveal(),
            isReplay: created.isReplay, isPassing: store.isPassing && !created.isReplay)
        answer.fields.append(("Location", "/v1/keys/\(Self.encoded(created.key.record.id))"))
        if created.isReplay { answer.fields.append(("Idempotent-Replayed", "true")) }
        return answer
    }

    private func scopes() throws -> ScopeSet? {
        guard let texts = try request.texts("scopes") else { return nil }
        var scopes: [Scope] = []
        for text in texts {
            guard let scope = Scope(text) else {
                throw APIRequest.invalid(
                    "scopes", "\"\(text.prefix(64))\" is not a scope like projects:read or projects:*")
            }
            scopes.append(scope)
        }
        guard let set = ScopeSet(scopes) else {
            throw APIRequest.invalid("scopes", "more than \(ScopeSet.countMax) scopes")
        }
        return set
    }

    private func update() throws -> SmallAnswer {
        var changes = KeyChanges()
        changes.name = try request.textSetting("name")
        changes.tier = try request.text("tier")
        changes.scopes = try scopes()
        changes.limits = try request.textSetting("limits")
        if request.body["expires_at"] == .null {
            changes.expiresAtSeconds = .clear
        } else if let seconds = try request.integer("expires_at") {
            changes.expiresAtSeconds = .set(seconds)
        }
        guard !changes.isEmpty else { throw APIRequest.bad("The body names nothing to change.") }
        return Self.shown(
            try store.update(request.name, changes, version: request.ifMatch, by: request.actor))
    }

    private func rotate() throws -> SmallAnswer {
        guard let overlap = try request.integer("overlap_seconds") else {
            throw APIRequest.invalid(
                "overlap_seconds", "say how long the old key stays valid beside the new one; 0 is not at all")
        }
        let rotated: RotatedKey
        do {
            rotated = try store.rotate(
                request.name, overlapSeconds: overlap, reason: try request.text("reason"),
                version: request.ifMatch, by: request.actor)
        } catch KeyStoreProblem.invalid(let field, let text) where field == "overlap" {
            throw APIRequest.invalid("overlap_seconds", text)
        }
        let fresh = KeyJSON.object(
            rotated.key, secret: rotated.secret.reveal(), isPassing: store.isPassing)
        let warning = rotated.warning.map { ",\"warning\":\(KeyJSON.string($0))" } ?? ""
        var answer = SmallAnswer(
            201, "application/json",
            "{\"new\":\(fresh),\"old\":\(KeyJSON.object(rotated.old))\(warning)}\n")
        answer.fields.append(("ETag", "\"\(rotated.key.version)\""))
        answer.fields.append(("Location", "/v1/keys/\(Self.encoded(rotated.key.record.id))"))
        return answer
    }

    /// An id as a segment of a path.
    private static func encoded(_ id: String) -> String {
        var result = ""
        for byte in id.utf8 {
            let character = Character(Unicode.Scalar(byte))
            if byte < 0x80, character.isLetter || character.isNumber || "-._~".contains(character) {
                result.append(character)
            } else {
                let digits = String(byte, radix: 16, uppercase: true)
                result += "%" + (digits.count == 1 ? "0" + digits : digits)
            }
        }
        return result
    }

    // MARK: Accounts and the trail

    private func readAccount() throws -> SmallAnswer {
        let limits = try store.limits(ofAccount: request.name)
        return SmallAnswer(200, "application/json", limits.json + "\n")
    }

    private func readAudit() throws -> SmallAnswer {
        let page = try store.trail(
            TrailFilter(
                id: request.query["key"], account: request.query["account"],
                action: request.query["action"]),
            after: request.query["cursor"],
            limit: try request.number("limit", in: 1...KeyStore.pageMax, otherwise: Self.pageDefault))
        return Self.page("entries", page.entries.map(\.json), page.nextCursor)
    }
}
