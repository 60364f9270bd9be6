import DataPlane
import HTTPWire

/// The lines of `gateway_requests_total`. Of all combinations of route, method, status and tier only those
/// that have been counted have one. They are looked for where a route and method has counted more than its
/// known lines say, which is when a new one has come.
final class RequestLines {
    private struct Line {
        let text: [UInt8]
        let statusSlot: Int
        let tier: Int
    }

    private struct Row {
        let route: (name: String, number: Int)
        let method: Method
        /// In the order of their statuses and tiers.
        var lines: [Line] = []
    }

    private let workers: [WorkerMetrics]
    private let tiers: [(name: String, number: Int)]
    private var rows: [Row]

    /// - Parameters:
    ///   - routes: their names with the numbers under which workers count them; -1 for none.
    ///   - tiers: likewise.
    init(
        _ workers: [WorkerMetrics], routes: [(name: String, number: Int)],
        tiers: [(name: String, number: Int)]
    ) {
        self.workers = workers
        self.tiers = tiers
        rows = routes.flatMap { route in Method.allCases.map { Row(route: route, method: $0) } }
    }

    func render(into text: inout [UInt8]) {
        for index in rows.indices {
            let start = text.count
            let known = write(rows[index], into: &text)
            // Read after the lines: a worker counts on the line first.
            guard total(rows[index]) > known else { continue }
            rows[index].lines = findLines(rows[index])
            text.removeLast(text.count - start)
            _ = write(rows[index], into: &text)
        }
    }

    /// - Returns: what the lines came to.
    private func write(_ row: Row, into text: inout [UInt8]) -> UInt64 {
        var sum: UInt64 = 0
        for line in row.lines {
            let count = count(row, line.statusSlot, line.tier)
            // A reload may have given the numbers to other names.
            guard count > 0 else { continue }
            text += line.text
            text.append(.count(count))
            sum &+= count
        }
        return sum
    }

    private func findLines(_ row: Row) -> [Line] {
        var lines: [Line] = []
        for slot in StatusSlot.labels.indices where !StatusSlot.labels[slot].isEmpty {
            for tier in tiers where count(row, slot, tier.number) > 0 {
                let labels = [
                    ("route", row.route.name), ("method", "\(row.method.name)"),
                    ("code", StatusSlot.labels[slot]), ("tier", tier.name),
                ]
                let text = Exposition.line("gateway_requests_total", labels)
                lines.append(Line(text: text, statusSlot: slot, tier: tier.number))
            }
        }
        return lines
    }

    private func count(_ row: Row, _ slot: Int, _ tier: Int) -> UInt64 {
        workers.reduce(0) {
            $0
                &+ $1.requests(
                    route: row.route.number, method: Int(row.method.rawValue), statusSlot: slot, tier: tier)
        }
    }

    private func total(_ row: Row) -> UInt64 {
        workers.reduce(0) {
            $0 &+ $1.requests(route: row.route.number, method: Int(row.method.rawValue))
        }
    }
}
