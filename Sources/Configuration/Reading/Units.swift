/// Numbers with units as people write them.
enum Units {
    private static let durations = [
        ("d", 86_400_000), ("h", 3_600_000), ("ms", 1), ("m", 60_000), ("s", 1_000),
    ]
    private static let sizes = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1_024), ("B", 1)]

    /// `250ms`, `5s`, `5m`, `2h`, `90d`, in milliseconds; `0` alone is allowed.
    static func milliseconds(_ text: String) -> Int? {
        text == "0" ? 0 : number(text, durations)
    }

    /// `512B`, `32KiB`, `10MiB`, `1GiB`, in bytes; a bare number counts bytes.
    static func bytes(_ text: String) -> Int? {
        digits(Substring(text)) ?? number(text, sizes)
    }

    /// The shortest way to write a duration exactly.
    static func text(milliseconds: Int) -> String {
        text(milliseconds, durations, smallest: "ms")
    }

    /// The shortest way to write a size exactly.
    static func text(bytes: Int) -> String {
        text(bytes, sizes, smallest: "B")
    }

    /// 1 to 18 digits and nothing else.
    static func digits(_ text: Substring) -> Int? {
        guard !text.isEmpty, text.utf8.count <= 18, text.utf8.allSatisfy(Bytes.isDigit) else { return nil }
        return Int(text)
    }

    private static func number(_ text: String, _ units: [(String, Int)]) -> Int? {
        for (unit, factor) in units where text.hasSuffix(unit) {
            guard let count = digits(text.dropLast(unit.count)) else { continue }
            let (product, overflow) = count.multipliedReportingOverflow(by: factor)
            return overflow ? nil : product
        }
        return nil
    }

    private static func text(_ number: Int, _ units: [(String, Int)], smallest: String) -> String {
        let exact = units.filter { number != 0 && number.isMultiple(of: $0.1) }
        guard let (unit, factor) = exact.max(by: { $0.1 < $1.1 }) else { return "\(number)\(smallest)" }
        return "\(number / factor)\(unit)"
    }
}
