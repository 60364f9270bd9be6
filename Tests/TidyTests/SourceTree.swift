import Foundation

/// The files of the repository as the rules see them: text by path, read once.
struct SourceTree {
    /// One text file.
    struct File {
        /// Path from the repository's root.
        let path: String
        let text: String
        /// Lines without their terminators.
        let lines: [Substring]

        /// Name of the module under `Sources` that the file belongs to.
        var module: Substring? {
            let parts = path.split(separator: "/")
            return parts.count >= 3 && parts[0] == "Sources" ? parts[1] : nil
        }
        var isSwift: Bool { path.hasSuffix(".swift") }
        var isTest: Bool { path.hasPrefix("Tests/") }
    }

    /// The repository as it stands beside this test.
    static let repository = SourceTree(
        root: URL(filePath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent(3))

    let files: [File]

    /// Swift files under `Sources`.
    var sources: [File] { files.filter { $0.isSwift && $0.module != nil } }
    /// Swift files everywhere.
    var swift: [File] { files.filter(\.isSwift) }

    init(root: URL) {
        let extensions: Set = ["swift", "md", "yaml", "yml", "json", "lua", "conf", "sh", "h", "example", ""]
        var found: [File] = []
        let walk = FileManager.default.enumerator(at: root, includingPropertiesForKeys: [.isRegularFileKey])
        while let url = walk?.nextObject() as? URL {
            let name = url.lastPathComponent
            let isFile = (try? url.resourceValues(forKeys: [.isRegularFileKey]))?.isRegularFile ?? false
            if !isFile, name.hasPrefix(".build") || name == ".git" || name == "corpus" {
                walk?.skipDescendants()
                continue
            }
            // In a linked worktree .git is a file.
            guard isFile, extensions.contains(url.pathExtension), name != "Package.resolved", name != ".git"
            else { continue }
            guard let text = try? String(contentsOf: url, encoding: .utf8) else { continue }
            let path = String(url.path.dropFirst(root.path.count)).drop { $0 == "/" }
            found.append(
                File(
                    path: String(path), text: text,
                    lines: text.split(separator: "\n", omittingEmptySubsequences: false)))
        }
        files = found.sorted { $0.path < $1.path }
    }
}

extension SourceTree.File {
    /// Every line, numbered from 1, that holds `word` outside a `//` comment when `inCode` is set.
    ///
    /// A word that begins with a letter must not continue a longer identifier: `print(` is not in
    /// `fingerprint(`.
    func lineNumbers(holding word: String, inCode: Bool) -> [Int] {
        guard text.range(of: word) != nil else { return [] }
        var numbers: [Int] = []
        for (index, line) in lines.enumerated() {
            let searched = inCode ? Self.withoutComment(line) : line
            guard let range = searched.range(of: word) else { continue }
            if let first = word.first, first.isLetter, range.lowerBound > searched.startIndex {
                let before = searched[searched.index(before: range.lowerBound)]
                if before.isLetter || before.isNumber || before == "_" || before == "." { continue }
            }
            numbers.append(index + 1)
        }
        return numbers
    }

    /// The part of a line before a `//` comment; `https://` does not begin one.
    static func withoutComment(_ line: Substring) -> Substring {
        var from = line.startIndex
        while let range = line[from...].range(of: "//") {
            let atStart = range.lowerBound == line.startIndex
            if atStart || line[line.index(before: range.lowerBound)].isWhitespace {
                return line[..<range.lowerBound]
            }
            from = range.upperBound
        }
        return line
    }

    /// Modules that the file imports, whatever access level and attributes stand before `import`.
    var imports: [Substring] {
        lines.compactMap { line in
            let words = Self.withoutComment(line).split(separator: " ")
            guard let index = words.firstIndex(of: "import"), index + 1 < words.count else { return nil }
            let before: Set<Substring> = [
                "package", "internal", "public", "private", "fileprivate", "@testable",
            ]
            guard words[..<index].allSatisfy({ before.contains($0) || $0.hasPrefix("@") }) else { return nil }
            let kinds: Set<Substring> = ["struct", "class", "enum", "func", "protocol", "typealias"]
            let name =
                kinds.contains(words[index + 1]) ? words[min(index + 2, words.count - 1)] : words[index + 1]
            return name.split(separator: ".").first
        }
    }
}

extension URL {
    fileprivate func deletingLastPathComponent(_ times: Int) -> URL {
        (0..<times).reduce(self) { url, _ in url.deletingLastPathComponent() }
    }
}
