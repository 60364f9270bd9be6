import Keys
import Redis

extension KeyFilter {
    /// Whether a key is one of those that are asked for.
    package func fits(_ key: StoredKey) -> Bool {
        let record = key.record
        guard account == nil || account == record.account, tier == nil || tier == record.tier,
            status == nil || status == key.status(), !isDue || key.rotationDue() != nil
        else { return false }
        guard let text, !text.isEmpty else { return true }
        let wanted = Self.folded(text)
        return [record.id, record.name ?? "", record.hint ?? ""].contains { Self.folded($0).contains(wanted) }
    }

    /// ASCII letters in lower case and everything else as it is.
    static func folded(_ text: String) -> String {
        String(decoding: text.utf8.map(folded), as: UTF8.self)
    }

    static func folded(_ byte: UInt8) -> UInt8 { (0x41...0x5a).contains(byte) ? byte + 0x20 : byte }
}

/// Tells from a few fields, where they lie in the store's answer, whether a key may be one of those that are
/// asked for. Most keys that a search passes are turned down here, before anything of them is copied; what is
/// let through is read whole, and `KeyFilter.fits` decides.
struct Preselection {
    /// The fields to ask for.
    private(set) var fields = ["tier"]

    private static let disabled = Array(KeyRecord.Status.disabled.rawValue.utf8)
    private static let revoked = Array(KeyRecord.Status.revoked.rawValue.utf8)

    private let filter: KeyFilter
    private let account: [UInt8]?
    private let tier: [UInt8]?
    private let text: [UInt8]
    private let nowSeconds: Int64
    private var accountPlace = 0
    private var statusPlace = 0
    private var datePlace = 0
    private var textPlace = 0

    /// - Returns: nil when every key is asked for.
    init?(_ filter: KeyFilter, nowSeconds: Int64) {
        self.filter = filter
        self.nowSeconds = nowSeconds
        account = filter.account.map { Array($0.utf8) }
        tier = filter.tier.map { Array($0.utf8) }
        text = Array(KeyFilter.folded(filter.text ?? "").utf8)
        let needsStatus = filter.status != nil || filter.isDue
        guard account != nil || tier != nil || needsStatus || !text.isEmpty else { return nil }
        if account != nil { accountPlace = add("account") }
        if needsStatus { statusPlace = add("status", "revoked_at", "expires_at") }
        if filter.isDue { datePlace = add("created_at", "rotated_to") }
        if !text.isEmpty { textPlace = add("name", "hint") }
    }

    /// - Returns: the place of the first of these fields.
    private mutating func add(_ names: String...) -> Int {
        fields += names
        return fields.count - names.count
    }

    /// - Parameter values: those of `fields`.
    func admits(id: [UInt8], _ values: Reply) -> Bool {
        guard values.count == fields.count, values.element(0).kind == .string else { return false }
        if let tier, !Self.equals(values.element(0), tier) { return false }
        if let account {
            let value = values.element(accountPlace)
            guard value.kind == .string ? Self.equals(value, account) : id == account else {
                return false
            }
        }
        return (statusPlace == 0 || isInCondition(values)) && (datePlace == 0 || isDue(values))
            && (textPlace == 0 || holdsText(id, values))
    }

    private func isInCondition(_ values: Reply) -> Bool {
        let status = values.element(statusPlace)
        let isRevoked = values.element(statusPlace + 1).kind == .string || Self.equals(status, Self.revoked)
        let isExpired = (Self.number(values.element(statusPlace + 2)) ?? .max) <= nowSeconds
        let standing: KeyFilter.Status =
            isRevoked
            ? .revoked : isExpired ? .expired : Self.equals(status, Self.disabled) ? .disabled : .active
        return standing == (filter.status ?? .active) && (!filter.isDue || standing == .active)
    }

    private func isDue(_ values: Reply) -> Bool {
        guard let created = Self.number(values.element(datePlace)) else { return false }
        return nowSeconds - created >= StoredKey.rotationSeconds
            && values.element(datePlace + 1).bytes.isEmpty
    }

    private func holdsText(_ id: [UInt8], _ values: Reply) -> Bool {
        Self.holds(values.element(textPlace).bytes, text)
            || Self.holds(values.element(textPlace + 1).bytes, text)
            || Self.holds(id.span, text)
    }

    // MARK: Bytes

    private static func equals(_ reply: Reply, _ wanted: [UInt8]) -> Bool {
        let bytes = reply.bytes
        guard bytes.count == wanted.count else { return false }
        for index in 0..<bytes.count where bytes[index] != wanted[index] { return false }
        return true
    }

    /// Digits as a number; nil for anything else.
    private static func number(_ reply: Reply) -> Int64? {
        let bytes = reply.bytes
        guard (1...12).contains(bytes.count) else { return nil }
        var value: Int64 = 0
        for index in 0..<bytes.count {
            guard (0x30...0x39).contains(bytes[index]) else { return nil }
            value = value * 10 + Int64(bytes[index] - 0x30)
        }
        return value
    }

    /// Whether a text in lower case stands somewhere in `bytes`, whatever the case of their ASCII letters.
    private static func holds(_ bytes: Span<UInt8>, _ wanted: [UInt8]) -> Bool {
        guard bytes.count >= wanted.count else { return false }
        for start in 0...(bytes.count - wanted.count) {
            var length = 0
            while length < wanted.count, KeyFilter.folded(bytes[start + length]) == wanted[length] {
                length += 1
            }
            if length == wanted.count { return true }
        }
        return false
    }
}
