/// Everything that the admin API can be asked for, as `/openapi.json` describes it.
enum Endpoint: CaseIterable {
    case listKeys, createKey, readKey, updateKey, revokeKey, rotateKey, disableKey, enableKey
    case readAccount, readAudit, readStatus, readConfiguration, reload

    /// The path, with names in braces where a segment is free.
    var template: String {
        switch self {
        case .listKeys, .createKey: "/v1/keys"
        case .readKey, .updateKey: "/v1/keys/{id}"
        case .revokeKey: "/v1/keys/{id}/revoke"
        case .rotateKey: "/v1/keys/{id}/rotate"
        case .disableKey: "/v1/keys/{id}/disable"
        case .enableKey: "/v1/keys/{id}/enable"
        case .readAccount: "/v1/accounts/{account}/limits"
        case .readAudit: "/v1/audit"
        case .readStatus: "/v1/status"
        case .readConfiguration: "/v1/config"
        case .reload: "/v1/reload"
        }
    }

    var method: String {
        switch self {
        case .listKeys, .readKey, .readAccount, .readAudit, .readStatus, .readConfiguration:
            "GET"
        case .createKey, .revokeKey, .rotateKey, .disableKey, .enableKey, .reload: "POST"
        case .updateKey: "PATCH"
        }
    }

    /// Names of the query's parameters. Any other is a mistake that would go unnoticed.
    var parameters: Set<String> {
        switch self {
        case .listKeys: ["account", "tier", "status", "q", "due", "cursor", "limit"]
        case .readAudit: ["key", "account", "action", "cursor", "limit"]
        default: []
        }
    }

    /// Members that a body may have; nil takes no body.
    var members: Set<String>? {
        switch self {
        case .createKey: ["account", "tier", "scopes", "name", "expires_at", "limits"]
        case .updateKey: ["tier", "scopes", "name", "expires_at", "limits"]
        case .rotateKey: ["overlap_seconds", "reason"]
        case .revokeKey, .disableKey, .enableKey: ["reason"]
        default: nil
        }
    }

    /// Whether a body must be there.
    var needsBody: Bool { self == .createKey || self == .updateKey || self == .rotateKey }

    var changesSomething: Bool { method != "GET" }

    /// The free segment of a path that fits: an empty text where the template has none, nil where it does
    /// not fit.
    func match(_ segments: [String]) -> String? {
        let wanted = template.split(separator: "/")
        guard segments.count == wanted.count else { return nil }
        var free = ""
        for (segment, pattern) in zip(segments, wanted) {
            if pattern.hasPrefix("{") {
                guard !segment.isEmpty else { return nil }
                free = segment
            } else if segment != pattern {
                return nil
            }
        }
        return free
    }
}
