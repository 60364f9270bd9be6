import DataPlane
import Foundation
import Testing

/// The words for why calls end as they do.
@Suite("Reasons")
struct ReasonTests {
    @Test("every reason that the log can have stands in the operating guide's table, and no other")
    func documented() throws {
        let root = URL(filePath: #filePath).resolvingSymlinksInPath()
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let guide = try String(
            contentsOf: root.appending(path: "Sources/gateway/gateway.docc/Operating.md"), encoding: .utf8)
        let section = try #require(guide.components(separatedBy: "## Reasons").dropFirst().first)
            .components(separatedBy: "\n## ")[0]
        let rows = section.split(separator: "\n").compactMap { line in
            line.firstMatch(of: /^\| `([a-z_]+)` \|/).map { String($0.1) }
        }
        #expect(Set(rows) == Set(WorkerMetrics.reasons + ["ok"]))
        #expect(rows.count == Set(rows).count)
    }
}
