import DataPlane
import Foundation
import Keys
import Reactor

/// How keys are shown to people and programs.
enum KeyText {
    /// Seconds of `90d`, `24h`, `15m`, `30s`; `.some(nil)` is never, nil is not a duration.
    static func duration(_ text: String) -> Int64?? {
        if text == "never" { return .some(nil) }
        let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3_600, "d": 86_400]
        guard let last = text.last, let unit = units[last], let count = Int64(text.dropLast()), count > 0,
            count <= 36_500
        else { return nil }
        return .some(count * unit)
    }

    static func day(_ seconds: Int64) -> String {
        let time = CalendarTime(unixSeconds: max(0, seconds))
        func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return "\(time.year)-\(two(time.month))-\(two(time.day)) \(two(time.hour)):\(two(time.minute))Z"
    }

    static func expiry(_ seconds: Int64?) -> String {
        seconds.map { "valid until \(day($0))" } ?? "valid for ever"
    }

    static func status(_ record: KeyRecord) -> String {
        switch record.standing(nowSeconds: WallClock.nowSeconds()) {
        case .valid: return "active"
        case .expired: return "expired"
        case .disabled: return "disabled"
        case .revoked: return "revoked"
        }
    }

    /// Columns side by side.
    static func table(_ rows: [[String]]) -> String {
        var widths: [Int] = []
        for row in rows {
            for (column, cell) in row.enumerated() {
                if column == widths.count { widths.append(0) }
                widths[column] = max(widths[column], cell.count)
            }
        }
        return rows.map { row in
            row.enumerated().map { column, cell in
                column == row.count - 1
                    ? cell : cell + String(repeating: " ", count: widths[column] - cell.count)
            }.joined(separator: "  ")
        }.joined(separator: "\n")
    }

    static func staticEntry(_ record: KeyRecord) -> String {
        var parts = [
            "sha256: \"\(record.digest.hexadecimal)\"", "id: \(record.id)", "account: \"\(record.account)\"",
            "tier: \(record.tier)",
        ]
        let scopes = record.scopes.scopes.map { "\"\($0.text)\"" }.joined(separator: ", ")
        parts.append("scopes: [\(scopes)]")
        if let expires = record.expiresAtSeconds { parts.append("expires_at: \(expires)") }
        if let limits = record.limits { parts.append("limits: \"\(limits)\"") }
        if let name = record.name { parts.append("name: \"\(JSONText.escape(name))\"") }
        return "- { " + parts.joined(separator: ", ") + " }"
    }

    /// The fields of the record: `scopes` as an array, times as numbers.
    static func json(_ record: KeyRecord, key: String?, lastSeen: Int64?) -> String {
        var members: [String] = []
        if let key { members.append("\"key\":\"\(key)\"") }
        for field in record.fields {
            switch field.name {
            case "scopes":
                let scopes = record.scopes.scopes.map { "\"\(JSONText.escape($0.text))\"" }
                members.append("\"scopes\":[\(scopes.joined(separator: ","))]")
            case "created_at", "expires_at": members.append("\"\(field.name)\":\(field.value)")
            default: members.append("\"\(field.name)\":\"\(JSONText.escape(field.value))\"")
            }
        }
        if let lastSeen { members.append("\"last_used\":\(lastSeen)") }
        return "{" + members.joined(separator: ",") + "}"
    }
}
