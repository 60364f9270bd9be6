package import Keys

/// What a new key is to be.
package struct KeyRequest: Sendable {
    /// Whom its calls are charged to; nil is the key itself.
    package var account: String?
    /// Name of a configured tier.
    package var tier: String
    /// What it may do.
    package var scopes: ScopeSet
    /// What its owner calls it, at most 256 bytes; no two usable keys of an account share a name.
    package var name: String?
    /// Unix seconds, in the future; nil is never.
    package var expiresAtSeconds: Int64?
    /// Windows that override the tier's, like `5000/minute,200/second`.
    package var limits: String?

    /// A request; `KeyStore.create` and `KeyStore.prepare` check it.
    package init(
        account: String?, tier: String, scopes: ScopeSet, name: String?, expiresAtSeconds: Int64?,
        limits: String?
    ) {
        self.account = account
        self.tier = tier
        self.scopes = scopes
        self.name = name
        self.expiresAtSeconds = expiresAtSeconds
        self.limits = limits
    }
}

/// Makes a creation that is sent twice happen once.
package struct Idempotency: Sendable {
    /// Longest key, in bytes.
    package static let bytesMax = 255

    /// The caller's own name for this creation, 1 to 255 bytes.
    package var key: String
    /// The request as it came: the same key with another request is a mistake.
    package var request: [UInt8]

    /// A name, and what was asked under it.
    package init(key: String, request: [UInt8]) {
        self.key = key
        self.request = request
    }
}

/// What becomes of one optional field.
package enum Setting<Value: Sendable & Equatable>: Sendable, Equatable {
    case keep
    /// The field goes.
    case clear
    case set(Value)
}

/// What is to change in a record. Account, id and the key itself never do.
package struct KeyChanges: Sendable {
    /// What its owner calls it.
    package var name: Setting<String> = .keep
    /// Name of a configured tier; nil keeps it.
    package var tier: String?
    /// All that it may do from now on; nil keeps it.
    package var scopes: ScopeSet?
    /// Windows that override the tier's; `clear` returns to the tier's.
    package var limits: Setting<String> = .keep
    /// Unix seconds, in the future; `clear` is never.
    package var expiresAtSeconds: Setting<Int64> = .keep

    /// No change yet.
    package init() {}

    /// Whether nothing is to change.
    package var isEmpty: Bool {
        name == .keep && tier == nil && scopes == nil && limits == .keep && expiresAtSeconds == .keep
    }
}

/// Who does something, for the audit trail.
package struct Actor: Sendable {
    /// A person or a program.
    package var name: String
    /// Where it was done from.
    package var origin: String

    /// Somebody, and where from.
    package init(name: String, origin: String) {
        self.name = name
        self.origin = origin
    }
}

/// Which keys a listing shows. Everything that is given must hold.
package struct KeyFilter: Sendable {
    /// A key's condition at the moment of asking.
    package enum Status: String, Sendable, CaseIterable { case active, disabled, expired, revoked }

    /// Exactly this account.
    package var account: String?
    /// Exactly this tier.
    package var tier: String?
    /// In this condition.
    package var status: Status?
    /// Part of the id, the name or the hint; the case of ASCII letters does not matter.
    package var text: String?
    /// Due for rotation.
    package var isDue = false

    /// All keys, unless narrowed.
    package init(
        account: String? = nil, tier: String? = nil, status: Status? = nil, text: String? = nil,
        isDue: Bool = false
    ) {
        self.account = account
        self.tier = tier
        self.status = status
        self.text = text
        self.isDue = isDue
    }
}
