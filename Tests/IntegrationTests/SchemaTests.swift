import Foundation
import Testing

/// The admin API under a fuzzer that knows nothing but its description.
@Suite("API schema", .serialized)
struct SchemaTests {
    private static let root = URL(filePath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()

    @Test("thousands of calls, valid and not, meet no server error and no answer that is not described")
    func fuzzer() throws {
        let world = try AdminTests.World()
        let program = Self.root.appending(path: ".build/python/bin/schemathesis").path
        guard FileManager.default.isExecutableFile(atPath: program) else {
            throw HarnessError("there is no \(program); `make test` installs it")
        }
        let folder = try TemporaryFolder()
        // Ten wrong tokens in a minute, and the next answer is 429: `ignored_auth` waits for 401, and the
        // tests of the API look at that. So they do at every method of every path: `unsupported_method` wants
        // 405 for a TRACE with content, which is malformed (RFC 9110 section 9.3.8).
        let settings = Self.root.appending(path: "Tests/Schema/schemathesis.toml").path
        let command = [
            program, "--config-file", settings, "run",
            "http://127.0.0.1:\(world.gateway.adminPort)/openapi.json", "--header",
            "Authorization: Bearer \(AdminTokens.write)", "--checks", "all", "--exclude-checks",
            "ignored_auth,unsupported_method", "--max-examples", "100", "--seed", "1", "--no-shrink",
            "--continue-on-failure", "--warnings", "off", "--request-timeout", "20",
        ]
        // It keeps what it found under the folder in which it runs.
        let outcome = try ChildProcess.run(
            "/bin/sh", ["-c", "cd \"$1\" && shift && exec \"$@\"", "sh", folder.root] + command,
            environment: ["HYPOTHESIS_STORAGE_DIRECTORY": folder.path("hypothesis"), "COLUMNS": "120"],
            within: 420)
        let report = outcome.output.suffix(6_000)
        #expect(outcome.status == 0, "\(report)\(outcome.error)")
        // "1199 generated, 1199 passed"
        let generated = try #require(report.firstMatch(of: /(\d+) generated/)?.1)
        #expect(try #require(Int(generated)) > 1_000)
        #expect(try world.gateway.manage("GET", "/v1/status").status == 200)
    }
}
