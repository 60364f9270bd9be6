import ArgumentParser
import Configuration
import Foundation
import KeyManagement
import Keys
import Reactor

extension KeysCommand {
    struct Scan: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Look for keys in files or on standard input; the exit status is 1 if there are any.",
            discussion: """
                Reports strings that begin with a key prefix and have a right checksum, with file, line and \
                column, and the ids of those that exist. The keys themselves are not printed.

                As a pre-commit hook: git diff --cached -U0 | gateway keys scan
                """)

        @Option(name: .shortAndLong, help: "The configuration file; gateway.conf if there is one.")
        var config: String?
        @Option(help: "How to print.") var output = Output.table
        @Option(name: .customLong("prefix"), help: "A key prefix, instead of the configured ones.")
        var prefixes: [String] = []
        @Flag(help: "Do not ask the store which of the keys exist.") var offline = false
        @Argument(help: "Files or folders; none, or -, is standard input.") var paths: [String] = []

        func run() throws {
            let configuration = try configured()
            let names = prefixes.isEmpty ? configuration?.keys.prefixes ?? ["sk_live_"] : prefixes
            guard let format = KeyFormat(prefixes: names) else {
                throw ValidationError("--prefix: a prefix is 1 to 32 letters, digits and -._~+/.")
            }
            var scan = LeakScan(
                format, store: offline ? nil : configuration.flatMap(Self.open), configuration)
            for path in paths.isEmpty ? ["-"] : paths { scan.look(at: path) }
            if output == .json {
                Console.out("[" + scan.leaks.map(\.json).joined(separator: ",\n ") + "]")
            } else {
                for leak in scan.leaks { Console.out(leak.report) }
            }
            for problem in scan.problems { Console.error("gateway: \(problem)") }
            guard scan.leaks.isEmpty else { throw ExitCode(Status.refused) }
            guard scan.problems.isEmpty else { throw ExitCode(Status.usage) }
        }

        /// Where no file is named and none is there, or it is of no use here, the usual prefix is looked for:
        /// a hook runs in any folder.
        private func configured() throws -> GatewayConfiguration? {
            if let config {
                var option = ConfigurationOption()
                option.config = config
                return try option.load()
            }
            return try? ConfigurationLoader.load(
                path: "gateway.conf", environment: Environment.all(), processors: 1)
        }

        private static func open(_ configuration: GatewayConfiguration) -> KeyStore? {
            do {
                return try KeyStore(configuration)
            } catch {
                Console.error("gateway: which of the keys exist is not known: \(error.text)")
                return nil
            }
        }
    }
}

/// A key that was found where it should not be.
private struct Leak {
    var path: String
    var line: Int
    var column: Int
    var masked: String
    /// nil where the store was not asked, or does not know it.
    var key: StoredKey?
    var isAsked: Bool

    var text: String {
        guard isAsked else { return "not looked up" }
        return key.map { "\($0.record.id), \($0.status().rawValue)" } ?? "not in the store"
    }

    var report: String { "\(path):\(line):\(column): \(masked) (\(text))" }

    var json: String {
        var members = [
            "\"file\":\(KeyJSON.string(path))", "\"line\":\(line)", "\"column\":\(column)",
            "\"masked\":\(KeyJSON.string(masked))",
        ]
        if let key {
            members.append("\"id\":\(KeyJSON.string(key.record.id))")
            members.append("\"status\":\"\(key.status().rawValue)\"")
        }
        return "{" + members.joined(separator: ",") + "}"
    }
}

/// Reads files piece by piece and keeps what it finds.
private struct LeakScan {
    /// Bytes that are read at once.
    private static let pieceBytes = 1 << 20
    /// Leaks that are told; a file with more of them needs no longer list.
    private static let leaksMax = 10_000

    private let scanner: KeyScanner
    private var store: KeyStore?
    private let configuration: GatewayConfiguration?
    private let keyBytesMax: Int
    private(set) var leaks: [Leak] = []
    private(set) var problems: [String] = []

    init(_ format: KeyFormat, store: KeyStore?, _ configuration: GatewayConfiguration?) {
        scanner = KeyScanner(format)
        self.store = store
        self.configuration = configuration
        keyBytesMax =
            (format.prefixes.map(\.utf8.count).max() ?? 0) + KeyFormat.randomCount + KeyFormat.checksumCount
    }

    mutating func look(at path: String) {
        if path == "-" { return look(at: FileHandle.standardInput, named: "-") }
        let target = URL(filePath: path).resolvingSymlinksInPath().path
        guard let kind = Self.kind(of: target) else {
            problems.append("\(path): there is no such file")
            return
        }
        guard kind == .typeDirectory else { return lookAtFile(path) }
        guard let walk = FileManager.default.enumerator(atPath: path) else {
            problems.append("\(path): the folder cannot be read")
            return
        }
        while let name = walk.nextObject() as? String {
            if (name as NSString).lastPathComponent == ".git" {
                walk.skipDescendants()
                continue
            }
            let whole = path.hasSuffix("/") ? path + name : "\(path)/\(name)"
            // Links lead to what is read under its own name, or out of the folder.
            if Self.kind(of: whole) == .typeRegular { lookAtFile(whole) }
        }
    }

    private static func kind(of path: String) -> FileAttributeType? {
        (try? FileManager.default.attributesOfItem(atPath: path))?[.type] as? FileAttributeType
    }

    private mutating func lookAtFile(_ path: String) {
        guard let handle = FileHandle(forReadingAtPath: path) else {
            problems.append("\(path): the file cannot be read")
            return
        }
        look(at: handle, named: path)
        try? handle.close()
    }

    private mutating func look(at handle: FileHandle, named path: String) {
        var rest: [UInt8] = []
        var line = 1
        var column = 1
        while true {
            let more: Data?
            do {
                more = try handle.read(upToCount: Self.pieceBytes)
            } catch {
                problems.append("\(path): the file cannot be read")
                return
            }
            let isEnd = more?.isEmpty ?? true
            rest += more ?? Data()
            let found = scanner.find(in: rest)
            // A key may go on in the next piece: what could be the beginning of one is kept.
            let kept = isEnd ? rest.count : max(0, rest.count - keyBytesMax + 1)
            let end = max(kept, found.last?.upperBound ?? 0)
            var index = 0
            for range in found {
                advance(&line, &column, over: rest[index..<range.lowerBound])
                report(rest[range], path, line, column)
                index = range.lowerBound
            }
            advance(&line, &column, over: rest[index..<end])
            rest.removeFirst(end)
            if isEnd { return }
        }
    }

    private func advance(_ line: inout Int, _ column: inout Int, over bytes: ArraySlice<UInt8>) {
        for byte in bytes {
            if byte == 0x0A {
                line += 1
                column = 1
            } else {
                column += 1
            }
        }
    }

    private mutating func report(_ bytes: ArraySlice<UInt8>, _ path: String, _ line: Int, _ column: Int) {
        guard leaks.count < Self.leaksMax else { return }
        let bytes = Array(bytes)
        let prefix = bytes.count - KeyFormat.randomCount - KeyFormat.checksumCount
        let masked =
            String(decoding: bytes[..<prefix], as: UTF8.self) + "..."
            + String(decoding: bytes.suffix(KeySecret.hintCount), as: UTF8.self)
        var leak = Leak(path: path, line: line, column: column, masked: masked, key: nil, isAsked: false)
        if let store, let configuration {
            do {
                leak.key = try store.find(digest: try KeyStore.digest(of: bytes.span, configuration))
                leak.isAsked = true
            } catch {
                // What is found is told all the same.
                Console.error("gateway: which of the keys exist is not known: \(error.text)")
                self.store = nil
            }
        }
        leaks.append(leak)
    }
}
