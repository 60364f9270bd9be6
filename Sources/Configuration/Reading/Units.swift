/// Numbers with units as people write them.
enum Units {
    /// `250ms`, `5s`, `5m`, `2h`, `90d`, in milliseconds; `0` alone is allowed.
    static func milliseconds(_ text: String) -> Int? {
        if text == "0" { return 0 }
        return number(text, [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)])
    }

    /// `512B`, `32KiB`, `10MiB`, `1GiB`, in bytes; a bare number counts bytes.
    static func bytes(_ text: String) -> Int? {
        if let plain = digits(Substring(text)) { return plain }
        return number(text, [("KiB", 1_024), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)])
    }

    private static func number(_ text: String, _ units: [(String, Int)]) -> Int? {
        for (unit, factor) in units where text.hasSuffix(unit) {
            guard let count = digits(text.dropLast(unit.count)) else { continue }
            let (product, overflow) = count.multipliedReportingOverflow(by: factor)
            return overflow ? nil : product
        }
        return nil
    }

    static func digits(_ text: Substring) -> Int? {
        guard !text.isEmpty, text.count <= 18, text.utf8.allSatisfy({ $0 >= 48 && $0 <= 57 }) else {
            return nil
        }
        return Int(text)
    }
}
