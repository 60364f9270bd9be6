import Keys
import Limits
import Reactor

// A file becomes a configuration in three steps: text to tree (`Composition`), tree to checked values
// (`Value`, `Section`, one `...Section` for each part of the file), values to the resolved types. No step
// stops at a problem; what cannot be read is replaced by its default and the whole is refused at the end.

/// Reads a configuration file: YAML, then every value checked, then every name resolved.
package enum ConfigurationLoader {
    /// Reads a file from the disk, and the certificates, keys and secrets that it names.
    ///
    /// - Parameters:
    ///   - path: the file; at most 16 MiB of UTF-8.
    ///   - environment: for `${NAME}`.
    ///   - processors: what `workers: auto` stands for, at least 1.
    /// - Throws: all problems together, in the order of the file.
    package static func load(
        path: String, environment: [String: String], processors: Int
    ) throws(ConfigurationProblems) -> GatewayConfiguration {
        let files = DiskFiles()
        let name = path.split(separator: "/").last.map(String.init) ?? path
        switch files.read(path) {
        case .success(let bytes):
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw ConfigurationProblems(
                    lines: ["\(name):\(unreadableLine(bytes)):1: this line is not UTF-8 text"])
            }
            return try load(
                text: text, fileName: name, environment: environment, files: files, processors: processors)
        case .failure(let problem):
            throw ConfigurationProblems(lines: ["\(path): \(problem.text)"])
        }
    }

    /// Reads a configuration that is in memory.
    ///
    /// - Parameters:
    ///   - text: YAML.
    ///   - fileName: stands before every problem.
    ///   - environment: for `${NAME}`.
    ///   - files: how certificates, keys and secrets are reached.
    ///   - processors: what `workers: auto` stands for, at least 1.
    /// - Throws: all problems together, in the order of the text.
    package static func load(
        text: String, fileName: String, environment: [String: String], files: any FileAccess, processors: Int
    ) throws(ConfigurationProblems) -> GatewayConfiguration {
        let context = Context(environment: environment, files: files)
        var configuration: GatewayConfiguration?
        if let node = Composition.compose(text, context.problems) {
            if let root = Value(node: node, context: context).section(FileKeys.description) {
                configuration = resolve(root, processors: processors)
                root.finish()
            }
        } else if context.problems.isEmpty {
            context.problems.add(Place(line: 1, column: 1), "the file holds no configuration")
        }
        guard let configuration, context.problems.isEmpty else {
            precondition(!context.problems.isEmpty, "a refused configuration has a reason")
            throw ConfigurationProblems(lines: context.problems.lines(fileName: fileName))
        }
        return configuration
    }

    /// The first line that is no text; counts from 1.
    private static func unreadableLine(_ bytes: [UInt8]) -> Int {
        let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        return 1 + (lines.firstIndex { String(validating: $0, as: UTF8.self) == nil } ?? 0)
    }

    /// Every section is read even when an earlier one is wrong.
    private static func resolve(_ root: Section, processors: Int) -> GatewayConfiguration? {
        let listen = root.required("listen", "the configuration").flatMap(ListenSection.read)
        let admin = root["admin"].flatMap(AdminSection.read)
        let store = root["store"].flatMap(StoreSection.read)
        let tiers = root.required("tiers", "the configuration").map(TierSection.read) ?? []
        let keys = KeysSection.read(
            root["keys"], tiers: tiers.map(\.name), exposedKeys: listen?.exposedKeys ?? .report)
        let sizes = LimitsSection.read(root["limits"])
        let upstreams = root.required("upstreams", "the configuration").map(UpstreamSection.read) ?? []
        let routes =
            root.required("routes", "the configuration").map {
                RouteSection.read($0, upstreams: upstreams.map(\.name))
            } ?? []
        let timeouts = LimitsSection.timeouts(root["timeouts"])
        let accessLog = MiscellaneousSection.accessLog(root["access_log"])
        let log = MiscellaneousSection.log(root["log"])
        let traces = root["traces"].flatMap(TracesSection.read)
        let workers = MiscellaneousSection.workers(root["workers"], processors: processors)
        let trusted = MiscellaneousSection.trustedProxies(root["trusted_proxies"])
        let legacy = FileKeys.legacyHeaders.value(in: root)
        guard let listen, let keys else { return nil }
        return GatewayConfiguration(
            listen: listen.configuration, admin: admin, store: store ?? StoreSection.standard, keys: keys,
            tiers: tiers, upstreams: upstreams, routes: routes, limits: sizes.sizes, timeouts: timeouts,
            accessLog: accessLog, workers: workers, trustedProxies: trusted, legacyRateLimitHeaders: legacy,
            log: log, traces: traces, failedAuthenticationsPerMinute: sizes.failedAuthentications)
    }
}

/// The disk.
package struct DiskFiles: FileAccess {
    /// Larger files are no keys, certificates or configurations.
    private static let bytesMax = 16 << 20

    /// The file system of this process; relative paths start at its working directory.
    package init() {}

    /// The file's bytes, at most 16 MiB.
    package func read(_ path: String) -> Result<[UInt8], FileProblem> {
        do {
            return .success(try FileReader.read(path: path, maximumBytes: Self.bytesMax))
        } catch {
            switch error.code {
            case 2: return .failure(FileProblem("the file does not exist"))
            case 13: return .failure(FileProblem("the file may not be read by this user"))
            case 21: return .failure(FileProblem("this is a directory"))
            default: return .failure(FileProblem("the file cannot be read: \(error.reason)"))
            }
        }
    }
}
