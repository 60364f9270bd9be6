package import Keys
import Reactor
import TLS

/// A key with what the store knows beside its record.
package struct StoredKey: Sendable {
    /// A usable key that is older than this, or unused for this long, is due for rotation: 90 days.
    package static let rotationSeconds: Int64 = 90 * 86_400

    /// Why a key is due for rotation.
    package enum RotationDue: String, Sendable {
        /// Made too long ago.
        case age
        /// Not used for too long.
        case unused
    }

    /// The record as it stands.
    package var record: KeyRecord
    /// Unix seconds of the last use, as far as it has been written down.
    package var lastSeenSeconds: Int64?
    /// Calls since the key was replaced, as far as they have been written down; nil before that.
    package var callsSinceRotation: Int64?
    /// Whether it stands in the configuration, where only an editor changes it.
    package var isStatic: Bool
    /// The fields that mean something as they stand in the store, which need not be how we would write them.
    let stored: [String: String]

    init(
        record: KeyRecord, lastSeenSeconds: Int64?, isStatic: Bool, stored: [(name: String, value: String)]
    ) {
        self.record = record
        self.lastSeenSeconds = lastSeenSeconds
        self.isStatic = isStatic
        let known = stored.filter { KeyRecord.fieldNames.contains($0.name) }
        self.stored = Dictionary(known.map { ($0.name, $0.value) }) { _, last in last }
    }

    /// A key that stands nowhere yet, to be shown as one that does.
    package init(unsaved record: KeyRecord) {
        self.init(record: record, lastSeenSeconds: nil, isStatic: false, stored: record.fields)
    }

    /// A key that stands in the configuration.
    init(declared record: KeyRecord) {
        self.init(record: record, lastSeenSeconds: nil, isStatic: true, stored: record.fields)
    }

    /// Changes with every field of the record that means something: 16 hexadecimal digits.
    package var version: String {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        // FNV-1a: it tells versions of one record apart; who can write records needs no collision.
        func add(_ text: String) {
            for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
            hash = (hash ^ 0xff) &* 0x100_0000_01b3
        }
        for name in KeyRecord.fieldNames.sorted() {
            guard let value = stored[name] else { continue }
            add(name)
            add(value)
        }
        let digits = String(hash, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// The key's condition at `nowSeconds` (Unix).
    package func status(nowSeconds: Int64 = WallClock.nowSeconds()) -> KeyFilter.Status {
        switch record.standing(nowSeconds: nowSeconds) {
        case .valid: return .active
        case .expired: return .expired
        case .disabled: return .disabled
        case .revoked: return .revoked
        }
    }

    /// Whether the key should be replaced: usable, not replaced yet, and made or last used 90 days ago.
    package func rotationDue(nowSeconds: Int64 = WallClock.nowSeconds()) -> RotationDue? {
        guard !isStatic, record.rotatedTo == nil, record.standing(nowSeconds: nowSeconds) == .valid,
            let created = record.createdAtSeconds
        else { return nil }
        if nowSeconds - max(created, lastSeenSeconds ?? 0) >= Self.rotationSeconds { return .unused }
        return nowSeconds - created >= Self.rotationSeconds ? .age : nil
    }
}

/// A new key with its record, before anything is written.
package struct PreparedKey: ~Copyable {
    /// What is to be stored.
    package let record: KeyRecord
    /// What is to be shown, once.
    package let secret: KeySecret
}

/// A key that has just been made.
package struct CreatedKey: ~Copyable {
    /// The key as it is stored.
    package let key: StoredKey
    /// What is to be shown, once; nil when this creation was done before and the key was shown then.
    package let secret: KeySecret?

    /// Whether the same creation was done before, so that nothing was made now.
    package var isReplay: Bool {
        switch secret {
        case .none: return true
        case .some: return false
        }
    }

    /// The text of the key, for the one who asked for it; nil for a replay.
    package borrowing func reveal() -> String? {
        switch secret {
        case .none: return nil
        case .some(let secret): return secret.reveal()
        }
    }
}

/// A key that has just been replaced.
package struct RotatedKey: ~Copyable {
    /// The key that replaces the old one.
    package let key: StoredKey
    /// The one that is replaced, valid until its `expiresAtSeconds`.
    package let old: StoredKey
    /// What is to be shown, once.
    package let secret: KeySecret
    /// What is left to do about the old key: a sentence, nil when all is done.
    package let warning: String?
}

/// One page of keys.
package struct KeyPage: Sendable {
    /// At most as many as were asked for.
    package var keys: [StoredKey]
    /// Where the next page begins; nil when there is none. A page may be short and still have a successor.
    package var nextCursor: String?
}
