/// Everything that is wrong with a configuration, in the order of the file.
package struct ConfigurationProblems: Error, Sendable {
    /// Like `gateway.conf:12:5: unknown tier "profesional" (did you mean "pro"?)`.
    package let lines: [String]

    init(lines: [String]) { self.lines = lines }
}

/// A place in the file; both count from 1.
struct Place: Hashable, Comparable {
    var line: Int
    var column: Int

    static func < (left: Place, right: Place) -> Bool {
        (left.line, left.column) < (right.line, right.column)
    }
}

/// Collects problems, so that all are reported together.
final class ProblemList {
    private var found: [(place: Place, text: String)] = []

    var isEmpty: Bool { found.isEmpty }

    func add(_ place: Place, _ text: String) {
        if !found.contains(where: { $0.place == place && $0.text == text }) { found.append((place, text)) }
    }

    func lines(fileName: String) -> [String] {
        found.sorted { $0.place < $1.place }.map {
            "\(fileName):\($0.place.line):\($0.place.column): \($0.text)"
        }
    }
}

/// Finds what somebody may have meant.
enum Suggestion {
    /// Nobody mistypes a name of this length, and the distance costs the product of both.
    private static let bytesMax = 64

    /// ` (did you mean "x"?)`, or nothing when no candidate is near.
    static func text(for written: String, among candidates: [String]) -> String {
        guard written.utf8.count <= bytesMax else { return "" }
        let lowered = written.lowercased()
        var best: (name: String, distance: Int)?
        for candidate in candidates {
            let name = candidate.lowercased()
            // A name that begins like the other is near however much is missing.
            let isStart =
                name.count >= 2 && (lowered.hasPrefix(name) || name.hasPrefix(lowered) && lowered.count >= 2)
            let distance = isStart ? 1 : distance(Array(lowered.utf8), Array(name.utf8))
            if best.map({ distance < $0.distance }) ?? true { best = (candidate, distance) }
        }
        guard let best, best.distance <= max(2, written.count / 3) else { return "" }
        return " (did you mean \"\(best.name)\"?)"
    }

    /// Levenshtein's distance, with neighbours swapped counted as one step.
    static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
        var rows = [[Int]](repeating: [Int](repeating: 0, count: right.count + 1), count: left.count + 1)
        for index in 0...left.count { rows[index][0] = index }
        for index in 0...right.count { rows[0][index] = index }
        guard !left.isEmpty, !right.isEmpty else { return max(left.count, right.count) }
        for row in 1...left.count {
            for column in 1...right.count {
                let same = left[row - 1] == right[column - 1] ? 0 : 1
                var best = min(
                    rows[row - 1][column] + 1, rows[row][column - 1] + 1, rows[row - 1][column - 1] + same)
                if row > 1, column > 1, left[row - 1] == right[column - 2], left[row - 2] == right[column - 1]
                {
                    best = min(best, rows[row - 2][column - 2] + 1)
                }
                rows[row][column] = best
            }
        }
        return rows[left.count][right.count]
    }
}
