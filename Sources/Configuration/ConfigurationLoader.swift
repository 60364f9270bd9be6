import Keys
import Limits
import Reactor
import Yams

/// Reads a configuration file: YAML, then every value checked, then every name resolved.
package enum ConfigurationLoader {
    /// - Parameters:
    ///   - path: the file.
    ///   - environment: for `${NAME}`.
    ///   - processors: what `workers: auto` stands for.
    /// - Throws: all problems together.
    package static func load(
        path: String, environment: [String: String], processors: Int
    ) throws(ConfigurationProblems) -> GatewayConfiguration {
        let files = DiskFiles()
        let name = path.split(separator: "/").last.map(String.init) ?? path
        switch files.read(path) {
        case .success(let bytes):
            return try load(
                text: String(decoding: bytes, as: UTF8.self), fileName: name, environment: environment,
                files: files, processors: processors)
        case .failure(let problem):
            throw ConfigurationProblems(lines: ["\(path): \(problem.text)"])
        }
    }

    package static func load(
        text: String, fileName: String, environment: [String: String], files: any FileAccess, processors: Int
    ) throws(ConfigurationProblems) -> GatewayConfiguration {
        let context = Context(environment: environment, files: files)
        let node: Node?
        do {
            node = try Yams.compose(yaml: text)
        } catch {
            throw ConfigurationProblems(lines: [syntaxProblem(error, fileName)])
        }
        guard let node, let root = Value(node: node, context: context).section() else {
            throw ConfigurationProblems(lines: ["\(fileName):1:1: the file holds no configuration"])
        }
        let configuration = resolve(root, processors: processors)
        root.finish()
        guard let configuration, context.problems.isEmpty else {
            throw ConfigurationProblems(lines: context.problems.lines(fileName: fileName))
        }
        return configuration
    }

    private static func syntaxProblem(_ error: any Error, _ fileName: String) -> String {
        guard let error = error as? YamlError else { return "\(fileName):1:1: \(error)" }
        switch error {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            return "\(fileName):\(mark.line):\(mark.column): \(problem)"
        case .duplicatedKeysInMapping(let duplicates, let context):
            let names = duplicates.sorted().map { "\"\($0)\"" }.joined(separator: ", ")
            return
                "\(fileName):\(context.mark.line):\(context.mark.column): \(names) stands here more than once"
        default:
            return "\(fileName):1:1: \(error)"
        }
    }

    /// Every section is read even when an earlier one is wrong.
    private static func resolve(_ root: Section, processors: Int) -> GatewayConfiguration? {
        let listen = root.required("listen", "the configuration").flatMap(ListenSection.read)
        let admin = root["admin"].flatMap(AdminSection.read)
        let store = root["store"].flatMap(StoreSection.read)
        let tiers = root.required("tiers", "the configuration").map(TierSection.read) ?? []
        var exposed = ExposedKeyPolicy.report
        if let policy = listen?.exposedKeys { exposed = policy }
        let keys = KeysSection.read(
            root["keys"], tiers: tiers.map(\.name), exposedKeys: exposed)
        let sizes = LimitsSection.read(root["limits"])
        let upstreams = root.required("upstreams", "the configuration").map(UpstreamSection.read) ?? []
        let routes =
            root.required("routes", "the configuration").map {
                RouteSection.read($0, upstreams: upstreams.map(\.name))
            } ?? []
        let timeouts = LimitsSection.timeouts(root["timeouts"])
        let accessLog = MiscellaneousSection.accessLog(root["access_log"])
        let log = MiscellaneousSection.log(root["log"])
        let workers = MiscellaneousSection.workers(root["workers"], processors: processors)
        let trusted = MiscellaneousSection.trustedProxies(root["trusted_proxies"])
        let legacy = root["rate_limit_headers"]?.choice([("standard", false), ("legacy", true)]) ?? false
        guard let listen, let keys else { return nil }
        return GatewayConfiguration(
            listen: listen.configuration, admin: admin, store: store ?? StoreSection.standard, keys: keys,
            tiers: tiers, upstreams: upstreams, routes: routes, limits: sizes.sizes, timeouts: timeouts,
            accessLog: accessLog, workers: workers, trustedProxies: trusted, legacyRateLimitHeaders: legacy,
            log: log, failedAuthenticationsPerMinute: sizes.failedAuthentications)
    }
}

/// The disk.
package struct DiskFiles: FileAccess {
    /// Larger files are no keys, certificates or configurations.
    private static let bytesMax = 16 << 20

    package init() {}

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
