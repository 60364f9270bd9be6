import Foundation
import Testing

/// Pages for people point at what is there.
@Suite("Pages")
struct PageTests {
    @Test("a source file that a page names exists")
    func sources() {
        let paths = SourceTree.repository.files.map(\.path)
        for page in SourceTree.repository.files where page.path.hasSuffix(".md") {
            for (index, line) in page.lines.enumerated() {
                for match in line.matches(of: /`([A-Za-z0-9\/+]+\.swift)`/) {
                    #expect(
                        paths.contains { ("/" + $0).hasSuffix("/" + match.1) },
                        "\(page.path):\(index + 1): there is no \(match.1)")
                }
            }
        }
    }

    @Test("a link of a page leads to a file of the repository")
    func links() {
        let root = URL(filePath: #filePath).resolvingSymlinksInPath()
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        for page in SourceTree.repository.files where page.path.hasSuffix(".md") {
            let folder = root.appending(path: page.path).deletingLastPathComponent()
            for (index, line) in page.lines.enumerated() {
                let links =
                    line.matches(of: /\]\(([A-Za-z0-9_.\/]+)\)/).map { String($0.1) }
                    + line.matches(of: /<doc:([A-Za-z]+)>/).map { "\($0.1).md" }
                for link in links {
                    #expect(
                        FileManager.default.fileExists(atPath: folder.appending(path: link).path),
                        "\(page.path):\(index + 1): there is no \(link)")
                }
            }
        }
    }
}
