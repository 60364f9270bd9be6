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

    @Test("the guide names what a reload keeps")
    func keptByReload() throws {
        func lines(_ path: String) throws -> [Substring] {
            try #require(SourceTree.repository.files.first { $0.path == path }).lines
        }
        let guide = try lines("Sources/gateway/gateway.docc/Operating.md")
        let start = try #require(guide.firstIndex { $0.contains("are sizes and identities of the process") })
        let words = Set(
            guide[(start - 3)...start].flatMap { line in line.matches(of: /`([a-z_.]+)`/).map(\.1) })
        let kept = try lines("Sources/DataPlane/Server/Reload.swift").flatMap { line in
            line.matches(of: /keep\("([a-z_.]+)"|kept\.append\("([a-z_.]+)"\)/).compactMap { $0.1 ?? $0.2 }
        }
        #expect(kept.count > 10)
        for key in kept {
            // Those of `limits` stand without it.
            let short = key.split(separator: ".").last ?? key
            #expect(words.contains(key) || key.hasPrefix("limits.") && words.contains(short), "\(key)")
        }
    }
}
