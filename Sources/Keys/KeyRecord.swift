/// A key as the store knows it: everything except the key.
package struct KeyRecord: Sendable, Equatable {
    /// Whether the key may be used at all.
    package enum Status: String, Sendable, CaseIterable {
        /// In use until it expires.
        case active
        /// Switched off; may be switched on again.
        case disabled
        /// Taken away for good.
        case revoked
    }

    /// What a key may be used for at one moment.
    package enum Standing: Sendable, Equatable {
        /// Active and not expired.
        case valid
        /// Past `expiresAtSeconds`, whatever its status.
        case expired
        /// Switched off.
        case disabled
        /// Taken away.
        case revoked
    }

    /// The digest under which the record is stored.
    package var digest: Digest256
    /// Public name of the key, `key_` and the digest's first 16 digits by default.
    package var id: String
    /// Who is charged: limits are counted per account. The key's id by default.
    package var account: String
    /// Name of a configured tier.
    package var tier: String
    /// What the key may do.
    package var scopes: ScopeSet = .none
    /// Whether it may be used.
    package var status: Status = .active
    /// What its owner calls it.
    package var name: String?
    /// Last four characters of the key.
    package var hint: String?
    /// When it was made, Unix seconds.
    package var createdAtSeconds: Int64?
    /// First second at which it is no longer valid, Unix seconds; `nil` is never.
    package var expiresAtSeconds: Int64?
    /// Windows that override the tier's, as written; not yet parsed here, see `KeyRecordProblem.limits`.
    package var limits: String?
    /// When it was taken away, Unix seconds. A record that says so is revoked, whatever `status` says: a
    /// program that writes the status late cannot bring the key back.
    package var revokedAtSeconds: Int64?
    /// Id of the key that replaces this one.
    package var rotatedTo: String?
    /// Id of the key that this one replaces.
    package var rotatedFrom: String?

    /// A record with every default filled in.
    package init(digest: Digest256, tier: String) {
        self.digest = digest
        self.tier = tier
        id = Self.defaultID(of: digest)
        account = id
    }

    /// `key_` and the first 16 hexadecimal digits.
    package static func defaultID(of digest: Digest256) -> String {
        "key_" + digest.hexadecimal.prefix(16)
    }

    /// What the key may be used for at `nowSeconds` (Unix). Revocation outranks expiry, which outranks a
    /// switch: the strongest reason is the one to report.
    package func standing(nowSeconds: Int64) -> Standing {
        if status == .revoked { return .revoked }
        if let expiresAtSeconds, nowSeconds >= expiresAtSeconds { return .expired }
        return status == .disabled ? .disabled : .valid
    }
}
