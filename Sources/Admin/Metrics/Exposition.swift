import DataPlane
import Reactor

// From one scrape to the next nothing of the text changes but its numbers. So it is compiled once for a
// configuration into lines that lack their values, and a scrape copies the lines and writes the values
// between them: all that a scrape costs is taken from the calls that wait for a processor meanwhile.

/// What a scrape reads once for all its samples.
struct Moment {
    var facts: MetricsFacts
    var usage: ProcessUsage
    /// Whether each endpoint is in use, in the order of the configuration.
    var health: [Bool]
}

/// A sample's value.
enum Reading {
    case count(UInt64)
    /// Written in seconds.
    case microseconds(Int64)
    case infinity
    /// There is nothing to tell: neither the sample nor its family, of which it is the only one, is shown.
    case nothing
}

/// The text of all metrics in one of its two forms, without the values.
final class Exposition {
    private enum Part {
        case text([UInt8])
        case sample(line: [UInt8], value: (Moment) -> Reading)
        /// The lines of all buckets, of the sum and of the count.
        case histogram(lines: [[UInt8]], cell: (Int) -> UInt64)
        case requests(RequestLines)
    }

    private let isOpenMetrics: Bool
    private var parts: [Part] = []
    /// What stands before the next part's own text.
    private var heading: [UInt8] = []
    /// How long the text was last.
    private var lastCount = 0

    init(openMetrics: Bool) { isOpenMetrics = openMetrics }

    // MARK: Compiling

    /// OpenMetrics names a counter's family without its `_total`.
    func family(_ name: String, _ type: String, _ help: String) {
        endHeading()
        var family = name
        if isOpenMetrics, type == "counter", family.hasSuffix("_total") { family.removeLast(6) }
        heading = Array("# HELP \(family) \(help)\n# TYPE \(family) \(type)\n".utf8)
    }

    /// - Parameter value: called at every scrape.
    func sample(
        _ name: String, _ labels: [(String, String)] = [], _ value: @escaping (Moment) -> Reading
    ) {
        parts.append(.sample(line: takeHeading() + Self.line(name, labels), value: value))
    }

    /// - Parameter cell: one of a histogram's cells, see `LatencyBuckets.cells`; called at every scrape.
    func histogram(_ name: String, _ label: (String, String), _ cell: @escaping (Int) -> UInt64) {
        let bounds = LatencyBuckets.upperBoundsMicroseconds
        var lines = (0..<LatencyBuckets.count).map { bucket in
            let bound = bucket < bounds.count ? Self.seconds(bounds[bucket]) : "+Inf"
            return Self.line("\(name)_bucket", [label, ("le", bound)])
        }
        lines += [Self.line("\(name)_sum", [label]), Self.line("\(name)_count", [label])]
        lines[0].insert(contentsOf: takeHeading(), at: 0)
        parts.append(.histogram(lines: lines, cell: cell))
    }

    /// Lines that appear when something is counted on them first.
    func requests(_ lines: RequestLines) {
        endHeading()
        parts.append(.requests(lines))
    }

    /// Ends the text.
    func finish() {
        endHeading()
        if isOpenMetrics { parts.append(.text(Array("# EOF\n".utf8))) }
    }

    private func takeHeading() -> [UInt8] {
        defer { heading = [] }
        return heading
    }

    private func endHeading() {
        if !heading.isEmpty { parts.append(.text(takeHeading())) }
    }

    /// A sample up to its value.
    static func line(_ name: String, _ labels: [(String, String)]) -> [UInt8] {
        let list = labels.map { "\($0.0)=\"\(escape($0.1))\"" }.joined(separator: ",")
        return Array((labels.isEmpty ? "\(name) " : "\(name){\(list)} ").utf8)
    }

    private static func escape(_ text: String) -> String {
        var result = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": result += "\\\\"
            case "\"": result += "\\\""
            case "\n": result += "\\n"
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }

    private static func seconds(_ microseconds: Int64) -> String {
        var text: [UInt8] = []
        text.append(seconds: microseconds)
        return String(decoding: text, as: UTF8.self)
    }

    // MARK: Rendering

    func render(_ moment: Moment) -> [UInt8] {
        var text: [UInt8] = []
        // Numbers grow.
        text.reserveCapacity(lastCount + 1_024)
        for part in parts {
            switch part {
            case .text(let bytes): text += bytes
            case .sample(let line, let value):
                let reading = value(moment)
                if case .nothing = reading { continue }
                text += line
                text.append(reading)
            case .histogram(let lines, let cell):
                var total: UInt64 = 0
                for bucket in 0..<LatencyBuckets.count {
                    total &+= cell(bucket)
                    text += lines[bucket]
                    text.append(.count(total))
                }
                text += lines[LatencyBuckets.count]
                text.append(.microseconds(Int64(clamping: cell(LatencyBuckets.count))))
                text += lines[LatencyBuckets.count + 1]
                text.append(.count(total))
            case .requests(let lines): lines.render(into: &text)
            }
        }
        lastCount = text.count
        return text
    }
}

extension [UInt8] {
    /// A value and the end of its line.
    mutating func append(_ reading: Reading) {
        switch reading {
        case .count(let count): append(decimal: count)
        case .microseconds(let microseconds): append(seconds: microseconds)
        case .infinity: append(contentsOf: "+Inf".utf8)
        case .nothing: break
        }
        append(UInt8(ascii: "\n"))
    }

    private mutating func append(decimal value: UInt64) {
        let first = count
        var rest = value
        repeat {
            append(UInt8(ascii: "0") &+ UInt8(truncatingIfNeeded: rest % 10))
            rest /= 10
        } while rest > 0
        self[first...].reverse()
    }

    /// Microseconds as seconds, exactly.
    fileprivate mutating func append(seconds microseconds: Int64) {
        if microseconds < 0 { append(UInt8(ascii: "-")) }
        let (whole, fraction) = microseconds.magnitude.quotientAndRemainder(dividingBy: 1_000_000)
        append(decimal: whole)
        guard fraction > 0 else { return }
        let point = count
        // One more digit in front keeps the zeros; the point takes its place.
        append(decimal: fraction + 1_000_000)
        self[point] = UInt8(ascii: ".")
        while last == UInt8(ascii: "0") { removeLast() }
    }
}
