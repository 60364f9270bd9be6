/// Which server a connection has led to, and which course of changes its data has taken (`INFO`).
///
/// A replica that takes over begins a history of its own and remembers the one that it had shared; so does a
/// master when its first replica comes. A process keeps its name until it ends.
package struct StoreHistory: Sendable, Equatable {
    /// `run_id`; empty when the server does not say.
    package var process = ""
    /// `master_replid`; empty when the server does not say.
    package var identifier = ""
    /// `master_replid2`: of the master whose place it took; empty when it took none's.
    package var former = ""

    /// Of a server that does not say.
    package init() {}

    /// The same for everybody who meets it: process and course; empty when the server says neither.
    package var name: String { String(process.prefix(12) + identifier.prefix(12)) }

    /// Takes what the lines of `INFO` say.
    package mutating func read(_ information: String) {
        for line in information.split(whereSeparator: \.isNewline) {
            let halves = line.split(separator: ":", maxSplits: 1)
            guard halves.count == 2, halves[1].utf8.count <= 64, halves[1].contains(where: { $0 != "0" })
            else { continue }
            switch halves[0] {
            case "run_id": process = String(halves[1])
            case "master_replid": identifier = String(halves[1])
            case "master_replid2": former = String(halves[1])
            default: break
            }
        }
    }
}
