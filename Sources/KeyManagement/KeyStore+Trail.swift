import Keys
import Redis

// The audit trail: one entry for every change, written with the change. It holds ids and values of fields,
// never a key.

/// One line of the trail.
package struct TrailEntry: Sendable {
    /// Its place in the trail, which is also its time: `<milliseconds>-<number>`.
    package var place: String
    /// What was done: `create`, `update`, `disable`, `enable`, `revoke`, `rotate`, `exposed`.
    package var action: String
    /// The key's id.
    package var id: String
    /// Whose key it is.
    package var account: String
    /// Who did it.
    package var actor: String
    /// Where it was done from.
    package var origin: String
    /// Why, when that was said.
    package var reason: String?
    /// The changed fields as they were: a JSON object.
    package var before: String?
    /// The changed fields as they are: a JSON object; a field that has gone is null.
    package var after: String?

    /// When it was done, Unix milliseconds.
    package var atMilliseconds: Int64 { place.split(separator: "-").first.flatMap { Int64($0) } ?? 0 }
}

/// Which lines of the trail are shown. Everything that is given must hold.
package struct TrailFilter: Sendable {
    /// Of this key.
    package var id: String?
    /// Of this account.
    package var account: String?
    /// Of this kind.
    package var action: String?

    /// All lines, unless narrowed.
    package init(id: String? = nil, account: String? = nil, action: String? = nil) {
        self.id = id
        self.account = account
        self.action = action
    }
}

/// Some lines of the trail, the latest first.
package struct TrailPage: Sendable {
    /// At most as many as were asked for.
    package var entries: [TrailEntry]
    /// Where the next page begins; nil when there is none.
    package var nextCursor: String?
}

/// What the trail says of a change.
struct TrailNote {
    var action: String
    var id: String
    var account: String
    var actor: Actor
    var reason: String?
    var before: [(name: String, value: String?)] = []
    var after: [(name: String, value: String?)] = []
}

extension KeyStore {
    /// Lines of the trail that are kept, about; a line has some 300 bytes.
    private static let trailLinesMax = 100_000
    /// Lines that one command reads: well below a millisecond.
    private static let trailChunk = 500
    /// Lines that one page looks at before it leaves the rest to the next.
    private static let trailExaminedMax = 20_000

    /// The step that writes a line. When the change is not done after all, another line says so.
    func trailStep(_ note: TrailNote) -> Step {
        var fields = [
            "action", note.action, "id", note.id, "account", note.account, "actor", note.actor.name, "from",
            note.actor.origin,
        ]
        if let reason = note.reason { fields += ["reason", reason] }
        if !note.before.isEmpty { fields += ["before", KeyJSON.object(note.before)] }
        if !note.after.isEmpty { fields += ["after", KeyJSON.object(note.after)] }
        let bound = ["XADD", "MAXLEN", "~", "\(Self.trailLinesMax)", "*"]
        let undo = [
            "action", "undone", "id", note.id, "account", note.account, "actor", note.actor.name, "from",
            note.actor.origin, "reason", "this \(note.action) was not done",
        ]
        return Step(.trail, trailName, [bound + fields], undo: [bound + undo])
    }

    /// Lines of the trail, the latest first.
    ///
    /// - Parameters:
    ///   - cursor: `nextCursor` of the page before.
    ///   - limit: 1 to 1,000.
    package func trail(
        _ filter: TrailFilter = TrailFilter(), after cursor: String? = nil, limit: Int = 100
    ) throws(KeyStoreProblem) -> TrailPage {
        guard !isMemory else { return TrailPage(entries: [], nextCursor: nil) }
        try check(limit: limit)
        var end = "+"
        if let cursor {
            guard Self.isPlace(cursor) else { throw .invalid(field: "cursor", "this is no cursor") }
            end = "(\(cursor)"
        }
        var page = TrailPage(entries: [], nextCursor: nil)
        for _ in 0..<Self.trailExaminedMax / Self.trailChunk {
            let reply = try run(["XREVRANGE", trailName, end, "-", "COUNT", "\(Self.trailChunk)"])
            guard let lines = reply.elements else {
                throw .unavailable("the store answered XREVRANGE with something else")
            }
            for line in lines {
                guard let entry = TrailEntry(line) else { continue }
                end = "(\(entry.place)"
                guard filter.fits(entry) else { continue }
                page.entries.append(entry)
                if page.entries.count == limit {
                    page.nextCursor = entry.place
                    return page
                }
            }
            guard lines.count == Self.trailChunk else { return page }
        }
        page.nextCursor = String(end.dropFirst())
        return page
    }

    func check(limit: Int) throws(KeyStoreProblem) {
        guard (1...Self.pageMax).contains(limit) else {
            throw .invalid(field: "limit", "this is 1 to \(Self.pageMax)")
        }
    }

    /// Digits, a dash, digits; each number fits in 64 bits, and something may stand before them.
    private static func isPlace(_ text: String) -> Bool {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        return parts.count == 2 && parts.contains { UInt64($0) != 0 }
            && parts.allSatisfy { part in
                UInt64(part) != nil && part.utf8.allSatisfy { (0x30...0x39).contains($0) }
            }
    }
}

extension TrailFilter {
    func fits(_ entry: TrailEntry) -> Bool {
        (id == nil || entry.id == id) && (account == nil || entry.account == account)
            && (action == nil || entry.action == action)
    }
}

extension TrailEntry {
    /// An entry as `XREVRANGE` returns it; nil when it is nothing of the kind.
    init?(_ line: RedisValue) {
        guard let parts = line.elements, parts.count == 2, let place = parts[0].text,
            let fields = parts[1].fields
        else { return nil }
        let values = Dictionary(fields.map { ($0.name, $0.value) }) { first, _ in first }
        self.init(
            place: place, action: values["action"] ?? "", id: values["id"] ?? "",
            account: values["account"] ?? "", actor: values["actor"] ?? "", origin: values["from"] ?? "",
            reason: values["reason"], before: values["before"], after: values["after"])
    }

    /// The line as a JSON object; `before` and `after` are objects in it.
    package var json: String {
        var members = [
            "\"cursor\":\(KeyJSON.string(place))", "\"at\":\(atMilliseconds / 1_000)",
            "\"action\":\(KeyJSON.string(action))", "\"id\":\(KeyJSON.string(id))",
            "\"account\":\(KeyJSON.string(account))", "\"actor\":\(KeyJSON.string(actor))",
            "\"from\":\(KeyJSON.string(origin))",
        ]
        if let reason { members.append("\"reason\":\(KeyJSON.string(reason))") }
        // Any program may write to the trail: what is no object of ours is shown as text.
        if let before { members.append("\"before\":\(KeyJSON.embedded(before))") }
        if let after { members.append("\"after\":\(KeyJSON.embedded(after))") }
        return "{" + members.joined(separator: ",") + "}"
    }
}
