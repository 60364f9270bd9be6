import Foundation
import Testing

/// The documents of the repository: commands that work, and files for others' tools that those tools accept.
@Suite("Documents", .serialized)
struct DocumentTests {
    private static let root = URL(filePath: #filePath).resolvingSymlinksInPath()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// The `sh` blocks of a document.
    private static func blocks(of path: String) throws -> [String] {
        let text = try String(contentsOf: root.appending(path: path), encoding: .utf8)
        return text.components(separatedBy: "```sh\n").dropFirst().map { part in
            part.components(separatedBy: "\n```")[0]
        }
    }

    @Test("every command in a document's sh block works", arguments: ["Operating", "Upgrading"])
    func commands(_ name: String) throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let blocks = try Self.blocks(of: "Sources/gateway/gateway.docc/\(name).md")
        #expect(!blocks.isEmpty)
        let folder = URL(filePath: gateway.configurationPath).deletingLastPathComponent().path
        let process = try #require(try gateway.processes().first)
        for block in blocks {
            let script = """
                set -euo pipefail
                cd "\(folder)"
                gateway() { "\(try Gateway.binary())" "$@"; }
                \(block)
                """
            let outcome = try ChildProcess.run(
                "bash", ["-c", script],
                environment: ["ADMIN": "127.0.0.1:\(gateway.adminPort)", "PID": "\(process)"])
            #expect(outcome.status == 0, "\(block)\n\(outcome.output)\(outcome.error)")
        }
        #expect(try gateway.call().status == 200)
    }

    @Test("systemd has nothing to object to in the units")
    func units() throws {
        let folder = try TemporaryFolder()
        for unit in ["gateway.service", "gateway.socket"] {
            let text = try String(contentsOf: Self.root.appending(path: "Docker/\(unit)"), encoding: .utf8)
            // systemd looks for the program where the package puts it.
            try folder.write(unit, text.replacing("/usr/bin/gateway", with: try Gateway.binary()))
        }
        let outcome = try ChildProcess.run(
            "systemd-analyze",
            ["verify", "--man=no", folder.path("gateway.service"), folder.path("gateway.socket")])
        // It runs outside of systemd here, and says so.
        let problems = (outcome.output + outcome.error).split(separator: "\n").filter {
            $0.contains("gateway.s") && !$0.contains("Failed to") && !$0.contains("bus")
        }
        #expect(problems.isEmpty, "\(problems)")
    }
}
