/// Why a limit as written cannot be used: one sentence.
package struct LimitProblem: Error, Equatable, Sendable {
    /// For the person who wrote the limit.
    package let text: String
}

/// Limits as people write them: `100/minute`, `1000/minute,50/second`, `5/10s`.
package struct LimitSpecification: Hashable, Sendable {
    /// Most permits of one window.
    package static let limitMaximum: Int64 = 1_000_000_000
    /// Longest window: 31 days, in microseconds.
    package static let lengthMaximum: Int64 = 31 * 86_400_000_000

    /// 1 to `LimitPlan.windowsMaximum`, as written.
    package let windows: [Window]
    /// As written, without spaces.
    package let text: String

    /// The same for the hot path.
    package var plan: LimitPlan { LimitPlan(windows) }

    /// Reads one or more limits, separated by commas.
    ///
    /// A unit is `second`, `minute`, `hour`, `day`, or a number with `ms`, `s`, `m`, `h` or `d`.
    package static func parse(_ text: String) throws(LimitProblem) -> LimitSpecification {
        var windows: [Window] = []
        var parts: [String] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let trimmed = part.filter { $0 != " " }
            let window = try parseOne(String(trimmed))
            if windows.contains(where: { $0.lengthMicroseconds == window.lengthMicroseconds }) {
                throw LimitProblem(text: "two limits for the same window in \"\(text)\"")
            }
            windows.append(window)
            parts.append(String(trimmed))
        }
        guard windows.count <= LimitPlan.windowsMaximum else {
            throw LimitProblem(text: "more than \(LimitPlan.windowsMaximum) windows in \"\(text)\"")
        }
        return LimitSpecification(windows: windows, text: parts.joined(separator: ","))
    }

    private static func parseOne(_ text: String) throws(LimitProblem) -> Window {
        let halves = text.split(separator: "/", omittingEmptySubsequences: false)
        guard halves.count == 2, let limit = number(halves[0]) else {
            throw LimitProblem(text: "\"\(text)\" is not a limit like 100/minute")
        }
        guard limit <= limitMaximum else {
            throw LimitProblem(text: "\"\(text)\" is above \(limitMaximum) permits")
        }
        guard let length = length(String(halves[1])) else {
            throw LimitProblem(
                text: "\"\(halves[1])\" is not a window: second, minute, hour, day, or like 10s, 5m, 2h")
        }
        guard length > 0, length <= lengthMaximum else {
            throw LimitProblem(text: "the window of \"\(text)\" is not between 1 ms and 31 days")
        }
        return Window(limit: limit, lengthMicroseconds: length)
    }

    private static func number(_ text: Substring) -> Int64? {
        guard !text.isEmpty, text.utf8.allSatisfy({ $0 >= 48 && $0 <= 57 }) else { return nil }
        return Int64(text)
    }

    private static func length(_ text: String) -> Int64? {
        switch text {
        case "second": return 1_000_000
        case "minute": return 60_000_000
        case "hour": return 3_600_000_000
        case "day": return 86_400_000_000
        default: break
        }
        let units: [(String, Int64)] = [
            ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000),
        ]
        for (unit, microseconds) in units where text.hasSuffix(unit) {
            guard let count = number(text.dropLast(unit.count)) else { return nil }
            let (product, overflow) = count.multipliedReportingOverflow(by: microseconds)
            return overflow ? nil : product
        }
        return nil
    }
}

/// Seconds for `Retry-After`: whole, at least 1, never early.
///
/// An instant is one microsecond past the window's end; that one is not rounded up to a second, because no
/// answer reaches its caller within it.
package func retryAfterSeconds(nowMicroseconds: Int64, retryMicroseconds: Int64) -> Int64 {
    max(1, (retryMicroseconds &- nowMicroseconds &+ 999_998) / 1_000_000)
}
