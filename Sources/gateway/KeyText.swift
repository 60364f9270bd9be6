import DataPlane
import Foundation
import KeyManagement
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

    /// What is said of a mistake on the command line, without arguments in it that may be keys: one is pasted
    /// into the wrong place easily, and which prefixes are in use is not known yet. Files are named in full.
    static func masked(_ text: String) -> String {
        var text = text
        let arguments = CommandLine.arguments.dropFirst()
        for (before, argument) in zip([""] + arguments, arguments) {
            let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
            let value = parts.last ?? argument
            let option = parts.count == 2 ? parts[0] : before
            guard value.utf8.count >= 20, value.contains(where: \.isNumber), !isID(value),
                !["--config", "-c"].contains(option), !FileManager.default.fileExists(atPath: value)
            else { continue }
            text = text.replacing(value, with: value.prefix(4) + "…")
        }
        return text
    }

    /// An id of our own making; a prefix of keys may begin like it.
    private static func isID(_ text: String) -> Bool {
        guard text.hasPrefix("key_") else { return false }
        let digits = text.dropFirst(4).utf8
        return digits.count == 16
            && digits.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }

    static func time(_ seconds: Int64) -> String {
        let time = CalendarTime(unixSeconds: max(0, seconds))
        func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return "\(time.year)-\(two(time.month))-\(two(time.day)) \(two(time.hour)):\(two(time.minute))Z"
    }

    static func expiry(_ seconds: Int64?) -> String {
        seconds.map { "valid until \(time($0))" } ?? "valid for ever"
    }

    static func scopes(_ record: KeyRecord) -> String {
        record.scopes.text.isEmpty ? "-" : record.scopes.text
    }

    /// A key as it is named in a question.
    static func summary(_ record: KeyRecord) -> String {
        let name = record.name.map { ", name \"\($0)\"" } ?? ""
        return visible("\(record.id), account \(record.account), tier \(record.tier)\(name)")
    }

    /// What other programs have written, without what a terminal would act on: `\u{1b}` in its place.
    static func visible(_ text: String) -> String {
        guard !text.unicodeScalars.allSatisfy(isVisible) else { return text }
        return text.unicodeScalars.map { scalar in
            isVisible(scalar) ? String(scalar) : "\\u{\(String(scalar.value, radix: 16))}"
        }.joined()
    }

    private static func isVisible(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator: false
        default: true
        }
    }

    static func rotation(_ key: StoredKey) -> String {
        switch key.rotationDue() {
        case .age: return "due: old"
        case .unused: return "due: unused"
        case nil: return key.record.rotatedTo == nil ? "-" : "replaced"
        }
    }

    /// All that is known of a key, a line each.
    static func details(_ key: StoredKey) -> [[String]] {
        var rows = key.record.fields.map { field in
            let isTime = ["created_at", "expires_at", "revoked_at"].contains(field.name)
            let time = isTime ? Int64(field.value).map(time) : nil
            return [field.name, time.map { "\($0) (\(field.value))" } ?? field.value]
        }
        if key.status() == .expired { rows.append(["expired", "yes"]) }
        rows.append(["last_used", key.lastSeenSeconds.map(time) ?? "never, as far as is known"])
        if let calls = key.callsSinceRotation { rows.append(["calls_since_rotation", "\(calls)"]) }
        if let due = key.rotationDue() {
            let reason = due == .age ? "older" : "unused for longer"
            rows.append(["rotation", "due: \(reason) than 90 days"])
        }
        rows.append(["version", key.version])
        rows.append(["stands in", key.isStatic ? "the configuration" : "the store"])
        return rows
    }

    /// Columns side by side.
    static func table(_ cells: [[String]]) -> String {
        let rows = cells.map { $0.map(visible) }
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
}

extension KeyText {
    /// `60 s`, or `0.250 s` where it is no whole number.
    static func length(_ microseconds: Int64) -> String {
        let (seconds, rest) = microseconds.quotientAndRemainder(dividingBy: 1_000_000)
        guard rest != 0 else { return "\(seconds) s" }
        let digits = "\(rest / 1_000)"
        return "\(seconds).\(String(repeating: "0", count: 3 - digits.count))\(digits) s"
    }
}
