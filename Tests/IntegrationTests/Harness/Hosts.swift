import Foundation

/// Names that stand for what a test says, in a program that the test starts.
struct Hosts {
    private let folder: TemporaryFolder
    private let path: String
    /// Starts the program with these names.
    let launcher: [String]

    /// - Parameter lines: of `/etc/hosts`.
    init(_ lines: String...) throws {
        folder = try TemporaryFolder()
        path = try folder.write("hosts", Self.text(lines))
        launcher = [
            "unshare", "-rm", "bash", "-c", "mount --bind \"\(path)\" /etc/hosts && exec \"$0\" \"$@\"",
        ]
    }

    /// Has the names stand for something else. In place: the mount holds on to the file.
    func replace(_ lines: String...) throws {
        let file = try FileHandle(forWritingTo: URL(filePath: path))
        try file.truncate(atOffset: 0)
        try file.write(contentsOf: Data(Self.text(lines).utf8))
        try file.close()
    }

    private static func text(_ lines: [String]) -> String {
        (["127.0.0.1 localhost"] + lines).map { $0 + "\n" }.joined()
    }
}
