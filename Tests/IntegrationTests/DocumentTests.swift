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

    /// Documents for operators; those without a command have no block.
    private static let documents: [String] = {
        let folder = root.appending(path: "Sources/gateway/gateway.docc").path
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return files.filter { $0.hasSuffix(".md") }.map { String($0.dropLast(3)) }.sorted()
    }()

    @Test("every command in a document's sh block works", arguments: documents)
    func commands(_ name: String) throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let blocks = try Self.blocks(of: "Sources/gateway/gateway.docc/\(name).md")
        guard !blocks.isEmpty else {
            #expect(!["Operating", "Upgrading"].contains(name))
            return
        }
        let folder = URL(filePath: gateway.configurationPath).deletingLastPathComponent().path
        for block in blocks {
            // One may have replaced the process.
            try Deadline(seconds: 20).wait("one process") { try gateway.processes().count == 1 }
            let process = try #require(try gateway.processes().first)
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
        try Deadline(seconds: 20).wait("one process") { try gateway.processes().count == 1 }
        for process in try gateway.processes() { kill(process, SIGTERM) }
        try Deadline(seconds: 20).wait("the end") { try gateway.processes().isEmpty }
    }

    @Test("every command that a sentence or a table names exists, with its options")
    func inlineCommands() throws {
        var found = 0
        for path in ["README.md"] + Self.documents.map({ "Sources/gateway/gateway.docc/\($0).md" }) {
            let text = try String(contentsOf: Self.root.appending(path: path), encoding: .utf8)
            let spans = text.split(separator: "\n").flatMap { line in
                line.split(separator: "`", omittingEmptySubsequences: false).enumerated()
                    .filter { $0.offset % 2 == 1 }.map(\.element)
            }
            for span in spans {
                guard let words = span.firstMatch(of: /\bgateway ([a-z].*)/)?.1.split(separator: " ") else {
                    continue
                }
                found += 1
                let command = words.prefix { $0.allSatisfy(\.isLowercase) }.map(String.init)
                let help = try ChildProcess.run(try Gateway.binary(), command + ["--help"])
                #expect(help.status == 0, "\(path): \(span)")
                for option in words where option.hasPrefix("--") {
                    #expect(help.output.contains(option), "\(path): \(span)")
                }
            }
        }
        #expect(found >= 10)
    }

    @Test("the configuration reference is what the program prints")
    func reference() throws {
        let printed = try ChildProcess.run(try Gateway.binary(), ["config", "reference"])
        let path = "Sources/gateway/gateway.docc/Configuration.md"
        #expect(try String(contentsOf: Self.root.appending(path: path), encoding: .utf8) == printed.output)
    }

    /// The commands are made to reach the gateway and the Redis of the test, and are otherwise run as they
    /// stand.
    @Test("README: the configuration is good, targets of make exist, and every other command works")
    func readme() throws {
        let text = try String(contentsOf: Self.root.appending(path: "README.md"), encoding: .utf8)
        let configuration = try #require(
            text.components(separatedBy: "```yaml\n").dropFirst().first?.components(separatedBy: "\n```")[0])
        let (redis, upstream) = (try RedisServer(), try Upstream())
        let gateway = try Gateway(Setup(upstream))
        let certificate = try Certificate.shared.get()
        let folder = try TemporaryFolder()
        let token = try folder.write("token", String(repeating: "a", count: 32))
        let address = "127.0.0.1:\(gateway.httpsPort)"
        // The running gateway takes it over: all but the address of its admin listener, which stays.
        let good =
            configuration.replacing("/etc/gateway/tls/fullchain.pem", with: certificate.chainPath)
            .replacing("/etc/gateway/tls/privkey.pem", with: certificate.keyPath)
            .replacing("/etc/gateway/admin-token", with: token).replacing("0.0.0.0:8443", with: address)
            .replacing("127.0.0.1:9901", with: "127.0.0.1:\(gateway.adminPort)")
            .replacing("redis://127.0.0.1:6379/0", with: redis.url)
            .replacing("http://127.0.0.1:3000", with: upstream.endpoint)
        try gateway.rewriteConfiguration { _ in good }
        gateway.child.signal(SIGUSR2)
        try Deadline(seconds: 20).wait("the program with that configuration. It said: \(gateway.log)") {
            gateway.log.contains("has taken over")
        }
        let key = "sk_live_readme"
        try redis.store(key, ["tier": "pro", "scopes": "projects:read"])
        var commands = 0
        for line in try Self.blocks(of: "README.md").joined(separator: "\n").split(separator: "\n") {
            commands += 1
            let command = line.split(separator: "#")[0].trimmingCharacters(in: .whitespaces)
            if command.hasPrefix("make ") {
                let made = try ChildProcess.run(
                    "make", ["-n", "-C", Self.root.path, String(command.dropFirst(5))])
                #expect(made.status == 0, "\(made.error)")
                continue
            }
            // It runs already, and does not end.
            if command == "gateway run --config gateway.conf" { continue }
            let script = """
                set -euo pipefail
                cd "\(URL(filePath: gateway.configurationPath).deletingLastPathComponent().path)"
                gateway() { "\(try Gateway.binary())" "$@"; }
                redis-cli() { command redis-cli -p \(redis.port) "$@"; }
                curl() { command curl -sSf --cacert "\(certificate.chainPath)" "$@"; }
                KEY=sk_live_another
                \(command.replacing("api.example.com:8443", with: "localhost:\(gateway.httpsPort)")
                    .replacing("sk_live_...", with: key))
                """
            let outcome = try ChildProcess.run("bash", ["-c", script])
            #expect(outcome.status == 0, "\(command)\n\(outcome.output)\(outcome.error)")
        }
        #expect(commands >= 7)
        for process in try gateway.processes() { kill(process, SIGTERM) }
        try Deadline(seconds: 20).wait("the end") { try gateway.processes().isEmpty }
    }

    @Test(
        "Kubernetes knows every field of the manifests, and their configuration is good",
        arguments: ["1.30.0", "1.37.0"])
    func manifests(_ version: String) throws {
        let path = Self.root.appending(path: "Docker/kubernetes/gateway.yaml").path
        let program = Self.root.appending(path: ".build/python/bin/kubernetes-validate").path
        guard FileManager.default.isExecutableFile(atPath: program) else {
            throw HarnessError("there is no \(program); `make test` installs it")
        }
        let outcome = try ChildProcess.run(program, ["--strict", "-k", version, path])
        #expect(outcome.status == 0, "\(outcome.output)\(outcome.error)")
        let text = try String(contentsOfFile: path, encoding: .utf8)
        for kind in ["Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "ConfigMap"] {
            #expect(text.contains("kind: \(kind)\n"))
        }
        // A field that does not exist is noticed.
        let folder = try TemporaryFolder()
        let wrong = try folder.write(
            "wrong.yaml", text.replacing("readOnlyRootFilesystem", with: "readonlyRoot"))
        #expect(try ChildProcess.run(program, ["--strict", "-k", version, wrong]).status != 0)
        let indented = text.components(separatedBy: "gateway.conf: |\n").dropFirst().first ?? ""
        let lines = indented.split(separator: "\n", omittingEmptySubsequences: false).prefix {
            $0.hasPrefix("    ")
        }
        let configuration = lines.map { $0.dropFirst(4) }.joined(separator: "\n")
        let certificate = try Certificate.shared.get()
        let file = try folder.write(
            "gateway.conf",
            configuration.replacing("/etc/gateway/tls/tls.crt", with: certificate.chainPath)
                .replacing("/etc/gateway/tls/tls.key", with: certificate.keyPath))
        let checked = try ChildProcess.run(try Gateway.binary(), ["check", "--config", file])
        #expect(checked.status == 0, "\(checked.error)")
        // Kubernetes waits for as long as a drain may take.
        func seconds(_ pattern: Regex<(Substring, Substring)>) -> Int? {
            text.firstMatch(of: pattern).flatMap { Int($0.1) }
        }
        let grace = try #require(seconds(/terminationGracePeriodSeconds: (\d+)/))
        let (delay, drain) = (
            try #require(seconds(/drain_delay: (\d+)s/)), try #require(seconds(/drain: (\d+)s/))
        )
        #expect(grace > delay + drain)
    }

    @Test("Compose knows every field of its file, what it mounts is there, and the configuration is good")
    func compose() throws {
        let path = Self.root.appending(path: "Docker/compose.yaml").path
        func check(_ path: String) throws -> ChildProcess.Outcome {
            try ChildProcess.run(
                "docker-compose",
                ["--project-directory", Self.root.appending(path: "Docker").path, "-f", path, "config"])
        }
        let outcome = try check(path)
        #expect(outcome.status == 0, "\(outcome.error)")
        // A field that does not exist is noticed.
        let folder = try TemporaryFolder()
        let text = try String(contentsOfFile: path, encoding: .utf8)
        let wrong = try folder.write("wrong.yaml", text.replacing("read_only:", with: "readonly:"))
        #expect(try check(wrong).status != 0)
        // The operator brings the certificate.
        let mounted = text.matches(of: /- (\.\/[^:]+):/).map { String($0.1) }.filter { $0 != "./tls" }
        #expect(mounted.count >= 6)
        for file in mounted {
            let place = Self.root.appending(path: "Docker/\(file.dropFirst(2))").path
            #expect(FileManager.default.fileExists(atPath: place), "\(file)")
        }
        let certificate = try Certificate.shared.get()
        let configuration = try String(
            contentsOf: Self.root.appending(path: "Docker/gateway.conf"), encoding: .utf8)
        let file = try folder.write(
            "gateway.conf",
            configuration.replacing("/etc/gateway/tls/fullchain.pem", with: certificate.chainPath)
                .replacing("/etc/gateway/tls/privkey.pem", with: certificate.keyPath))
        let checked = try ChildProcess.run(try Gateway.binary(), ["check", "--config", file])
        #expect(checked.status == 0, "\(checked.error)")
        // Compose waits for as long as a drain may take by default.
        let grace = text.firstMatch(of: /stop_grace_period: (\d+)s/).flatMap { Int($0.1) }
        #expect(try #require(grace) > 35)
    }

    @Test("what the compose file has one paste before it is started works in a clone that has just been made")
    func certificateForCompose() throws {
        let folder = try TemporaryFolder()
        try FileManager.default.createDirectory(
            atPath: folder.path("Docker"), withIntermediateDirectories: false)
        let text = try String(contentsOf: Self.root.appending(path: "Docker/compose.yaml"), encoding: .utf8)
        let pasted = text.split(separator: "\n").prefix { $0.hasPrefix("#") }
            .filter { $0.hasPrefix("#   ") }.map { $0.dropFirst(4) }
        let docker = try #require(pasted.firstIndex { $0.hasPrefix("docker ") })
        let script = "cd \"\(folder.root)\"\n" + pasted[..<docker].joined(separator: "\n")
        let outcome = try ChildProcess.run("bash", ["-euc", "umask 077\n" + script])
        #expect(outcome.status == 0, "\(outcome.error)")
        // Another user reads them.
        for (file, needed) in [("", 0o005), ("/fullchain.pem", 0o004), ("/privkey.pem", 0o004)] {
            let attributes = try FileManager.default.attributesOfItem(
                atPath: folder.path("Docker/tls") + file)
            #expect((attributes[.posixPermissions] as? Int ?? 0) & needed == needed, "tls\(file)")
        }
        let configuration = try String(
            contentsOf: Self.root.appending(path: "Docker/gateway.conf"), encoding: .utf8)
        let file = try folder.write(
            "gateway.conf", configuration.replacing("/etc/gateway/tls", with: folder.path("Docker/tls")))
        let checked = try ChildProcess.run(try Gateway.binary(), ["check", "--config", file])
        #expect(checked.status == 0, "\(checked.error)")
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
