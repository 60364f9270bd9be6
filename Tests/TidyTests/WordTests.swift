import Foundation
import Testing

/// Words that a reviewer would stop at, each with what to write instead; exceptions are named with a reason.
@Suite("Words")
struct WordTests {
    struct Ban: Sendable, CustomTestStringConvertible {
        let word: String
        let instead: String
        /// Where the ban holds: path prefixes.
        var within = ["Sources/", "Tests/"]
        /// Path prefixes that are excepted, each with its reason.
        var excepted: [String: String] = [:]

        var testDescription: String { word }
    }

    static let bans: [Ban] = [
        Ban(
            word: "try!", instead: "handle the error, or preconditionFailure with the reason it cannot happen"
        ),
        Ban(word: "as!", instead: "as? and a precondition with text"),
        Ban(word: "fatalError(", instead: "preconditionFailure(\"what was assumed\")"),
        Ban(
            word: "print(", instead: "the log",
            excepted: ["Sources/gateway/": "commands talk to a person on standard output"]),
        Ban(
            word: "import Foundation", instead: "the standard library and Reactor", within: ["Sources/"],
            excepted: [
                "Sources/Configuration/": "reads files once, before anything serves",
                "Sources/KeyManagement/": "times and JSON of the management commands, off the data plane",
                "Sources/Admin/": "JSON of the admin interface, off the data plane",
                "Sources/gateway/": "commands, off the data plane",
            ]),
        Ban(word: "DispatchQueue", instead: "a thread of the reactor and its mailbox"),
        Ban(
            word: "@unchecked Sendable", instead: "a value, a Mutex, or confinement to one thread",
            excepted: [
                "Sources/DataPlane/Observation/AccessRecord.swift": "a block changes hands with the message",
                "Sources/DataPlane/Observation/CounterBank.swift": "one writer, atomic cells",
                "Sources/DataPlane/Server/GatewayServer.swift": "workers are confined to their threads",
                "Sources/DataPlane/Worker/ServingPlan.swift": "plain rows, written before they are shared",
                "Sources/DataPlane/Worker/Adoption.swift":
                    "handed from the thread that builds it to a worker",
                "Sources/gateway/": "objects handed to one thread before it starts",
            ]),
        Ban(word: "nonisolated(unsafe)", instead: "a value, a Mutex, or confinement to one thread"),
        Ban(word: "TODO", instead: "do it, or leave it out"),
        Ban(word: "FIXME", instead: "fix it"),
        Ban(word: "XXX", instead: "say what is meant"),
        Ban(word: "Thread.sleep", instead: "wait for the event itself"),
        Ban(word: "Task.sleep", instead: "wait for the event itself"),
        Ban(word: "usleep(", instead: "wait for the event itself"),
        Ban(word: "sleep(", instead: "wait for the event itself"),
        Ban(word: "-Ounchecked", instead: "nothing: preconditions are the last line of defence"),
    ]

    @Test("no banned word", arguments: bans)
    func bannedWord(_ ban: Ban) {
        for file in SourceTree.repository.swift {
            guard ban.within.contains(where: { file.path.hasPrefix($0) }) else { continue }
            guard !ban.excepted.keys.contains(where: { file.path.hasPrefix($0) }) else { continue }
            guard !file.path.hasPrefix("Tests/TidyTests/") else { continue }
            for number in file.lineNumbers(holding: ban.word, inCode: !ban.isForComments) {
                Issue.record("\(file.path):\(number): \(ban.word): write instead: \(ban.instead)")
            }
        }
    }

    /// A path that exists on one machine only says nothing to a reader.
    @Test("no path of somebody's machine", arguments: ["/home/", "/root/", "/work/", "/Users/", "/tmp/plan"])
    func noPathOfSomebodysMachine(_ path: String) {
        for file in SourceTree.repository.files where !file.path.hasPrefix("Tests/TidyTests/") {
            for number in file.lineNumbers(holding: path, inCode: false) {
                Issue.record("\(file.path):\(number): \(path) exists on somebody's machine only")
            }
        }
    }

    /// A comment that points to a document must point into the repository.
    @Test("no mention of a document that is not here")
    func documentsExist() {
        let names = Set(SourceTree.repository.files.map { $0.path.split(separator: "/").last ?? "" })
        for file in SourceTree.repository.files where !file.path.hasPrefix("Tests/TidyTests/") {
            for (index, line) in file.lines.enumerated()
            where line.contains(".md") || line.contains(" section") {
                for match in line.matches(of: /\b([A-Z]{4,}\.md)\b/) where !names.contains(match.1) {
                    Issue.record("\(file.path):\(index + 1): there is no \(match.1)")
                }
                for match in line.matches(of: /\b(SPEC|DESIGN|LIMITS|STYLE|PERFORMANCE|CONTRACT)\b/) {
                    Issue.record("\(file.path):\(index + 1): \(match.1) is not a document of this repository")
                }
            }
        }
    }

    @Test("comments and documents speak of the product, not of how it was made")
    func productOnly() {
        let words = ["colleague", "the brief", "this session", "issue #", "founder"]
        for file in SourceTree.repository.files where !file.path.hasPrefix("Tests/TidyTests/") {
            for word in words {
                for number in file.lineNumbers(holding: word, inCode: false) {
                    Issue.record("\(file.path):\(number): \"\(word)\" speaks of how the product was made")
                }
            }
        }
    }
}

extension WordTests.Ban {
    /// Marks of unfinished work are looked for in comments too.
    fileprivate var isForComments: Bool { ["TODO", "FIXME", "XXX"].contains(word) }
}
