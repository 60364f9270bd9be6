import Configuration
import Foundation
import Keys
import Reactor
import Redis

// Listing: the index is walked from the newest key on, some hundred at a time, and what fits is picked where
// it lies, so that a search over all keys moves only what it finds. Chunks are asked for one after another:
// commands sent together would be served together, and others would wait for all of them.
//
// A cursor names the last key that was looked at. Keys that are added meanwhile are newer and stand before
// it, so that a listing shows every key that was there when it began, once.

extension KeyStore {
    /// Keys that one command looks at: half a millisecond of Redis's time.
    private static let chunk = 128
    /// Keys that one page looks at before it leaves the rest to the next.
    private static let examinedMax = 200_000

    /// Keys of the configuration and of the store, the newest first. Records that cannot be used are left
    /// out: they refuse their keys anyway.
    ///
    /// - Parameters:
    ///   - cursor: `nextCursor` of the page before.
    ///   - limit: 1 to 1,000 keys.
    package func list(
        _ filter: KeyFilter = KeyFilter(), after cursor: String? = nil, limit: Int = 100
    ) throws(KeyStoreProblem) -> KeyPage {
        try check(limit: limit)
        var position = Cursor.declared(0)
        if let cursor {
            guard let read = Cursor(cursor) else { throw .invalid(field: "cursor", "this is no cursor") }
            position = read
        }
        var page = KeyPage(keys: [], nextCursor: nil)
        if case .declared(let first) = position {
            let declared = configuration.keys.staticKeys.map(StoredKey.init(declared:)).filter(filter.fits)
            page.keys = Array(declared.dropFirst(first).prefix(limit))
            if first + page.keys.count < declared.count {
                page.nextCursor = Cursor.declared(first + page.keys.count).text
                return page
            }
            guard !isMemory else { return page }
            if page.keys.count == limit {
                page.nextCursor = Cursor.declared(declared.count).text
                return page
            }
            if cursor == nil { try adopt() }
            position = .stored(score: "", id: "")
        }
        guard !isMemory else { return page }
        var examined = 0
        while page.keys.count < limit, examined < Self.examinedMax {
            let found = try chunk(filter, after: position, wanted: limit - page.keys.count)
            examined += Self.chunk
            let declared = configuration.keys.staticKeys
            // The configuration's keys hide the store's.
            page.keys += found.keys.filter { key in
                !declared.contains { $0.digest == key.record.digest || $0.id == key.record.id }
            }
            guard let next = found.next else { return page }
            position = next
        }
        page.nextCursor = position.text
        return page
    }

    /// How many keys fit.
    ///
    /// - Parameter pause: called between two commands; false ends the count.
    package func count(
        _ filter: KeyFilter, pause: () -> Bool = { true }
    ) throws(KeyStoreProblem) -> Int? {
        var total = configuration.keys.staticKeys.map(StoredKey.init(declared:)).filter(filter.fits).count
        guard !isMemory else { return total }
        var position = Cursor.stored(score: "", id: "")
        while true {
            let found = try chunk(filter, after: position, wanted: nil)
            total += found.count
            guard let next = found.next else { return total }
            position = next
            guard pause() else { return nil }
        }
    }

    // MARK: One chunk

    private struct Chunk {
        var keys: [StoredKey] = []
        var count = 0
        /// Where to go on; nil at the end.
        var next: Cursor?
    }

    private func chunk(
        _ filter: KeyFilter, after cursor: Cursor, wanted: Int?
    ) throws(KeyStoreProblem) -> Chunk {
        guard case .stored(let score, let id) = cursor else { return Chunk() }
        if spreads { return try spreadChunk(filter, score, id, wanted) }
        let reply = try run([
            "EVAL", ListScript.page, "3", indexName, "\(prefix)seen", "\(prefix)calls", prefix, score, id,
            "\(Self.chunk)", "\(wanted ?? 0)", "\(WallClock.nowSeconds())", filter.account ?? "",
            filter.tier ?? "", filter.status?.rawValue ?? "", KeyFilter.folded(filter.text ?? ""),
            filter.isDue ? "1" : "", "\(StoredKey.rotationSeconds)",
        ])
        guard let parts = reply.elements, parts.count >= 4, let count = parts[0].integer,
            let lastScore = parts[1].text, let lastID = parts[2].text, let isEnd = parts[3].integer
        else { throw .unavailable("the store answered a listing with something else") }
        var result = Chunk()
        result.count = Int(count)
        if isEnd == 0 { result.next = .stored(score: lastScore, id: lastID) }
        for part in parts.dropFirst(4) {
            guard let found = part.elements, found.count == 4, let hex = found[0].text,
                let digest = Digest256(hex: hex), let fields = found[3].fields,
                var key = StoredKey(digest, fields)
            else { continue }
            key.addUse(seen: found[1], calls: found[2])
            result.keys.append(key)
        }
        return result
    }

    /// The same in a cluster, where no script may touch what it finds on the way.
    private func spreadChunk(
        _ filter: KeyFilter, _ score: String, _ id: String, _ wanted: Int?
    ) throws(KeyStoreProblem) -> Chunk {
        var first: Int64 = 0
        if !id.isEmpty {
            if let rank = try run(["ZREVRANK", indexName, id]).integer {
                first = rank + 1
            } else {
                first = try run(["ZCOUNT", indexName, "(\(score)", "+inf"]).integer ?? 0
            }
        }
        let range = ["ZREVRANGE", indexName, "\(first)", "\(first + Int64(Self.chunk) - 1)", "WITHSCORES"]
        guard let entries = try run(range).fields else {
            throw .unavailable("the store answered ZREVRANGE with something else")
        }
        let digests = try runAll(entries.map { ["GET", idName($0.name)] }).map { value in
            value.text.flatMap { Digest256(hex: $0) }
        }
        let known = zip(entries, digests).compactMap { entry, digest in digest.map { (entry, $0) } }
        let records = try runAll(
            known.flatMap { entry, digest in
                [
                    ["HGETALL", recordName(digest)], ["HGET", "\(prefix)seen", entry.name],
                    ["HGET", "\(prefix)calls", entry.name],
                ]
            })
        var result = Chunk()
        if entries.count == Self.chunk, let last = entries.last {
            result.next = .stored(score: last.value, id: last.name)
        }
        for (index, (entry, digest)) in known.enumerated() {
            guard let fields = records[3 * index].fields, var key = StoredKey(digest, fields),
                key.record.id == entry.name
            else { continue }
            key.addUse(seen: records[3 * index + 1], calls: records[3 * index + 2])
            guard filter.fits(key) else { continue }
            result.count += 1
            guard let wanted else { continue }
            result.keys.append(key)
            if result.keys.count == wanted {
                result.next = .stored(score: entry.value, id: entry.name)
                break
            }
        }
        return result
    }
}

/// Where a listing goes on.
enum Cursor: Equatable {
    /// At this key of the configuration.
    case declared(Int)
    /// After this entry of the index; empty is its beginning.
    case stored(score: String, id: String)

    /// What `text` has returned; nil for anything else.
    init?(_ text: String) {
        let standard = text.replacing("-", with: "+").replacing("_", with: "/")
        let padded = standard + String(repeating: "=", count: (4 - standard.utf8.count % 4) % 4)
        guard text.utf8.count <= 512, let data = Data(base64Encoded: padded),
            let plain = String(data: data, encoding: .utf8)
        else { return nil }
        let parts = plain.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2 else { return nil }
        if parts[0] == "c" {
            guard let number = Int(parts[1]), number >= 0 else { return nil }
            self = .declared(number)
        } else {
            guard let score = Double(parts[0]), score.isFinite else { return nil }
            guard KeyRecord.isIdentifier(String(parts[1])) else { return nil }
            self = .stored(score: String(parts[0]), id: String(parts[1]))
        }
    }

    /// Opaque: letters, digits, `-` and `_`.
    var text: String {
        let plain: String
        switch self {
        case .declared(let number): plain = "c:\(number)"
        case .stored(let score, let id): plain = "\(score):\(id)"
        }
        return Data(plain.utf8).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_")
            .replacing("=", with: "")
    }
}

extension StoredKey {
    /// A record as `HGETALL` returns it; nil when there is none that can be used.
    init?(_ digest: Digest256, _ fields: [(name: String, value: String)]) {
        guard !fields.isEmpty,
            let record = try? KeyRecord(digest: digest, fields: fields, isTier: { _ in true })
        else { return nil }
        self.init(record: record, lastSeenSeconds: nil, isStatic: false, stored: fields)
    }
}

extension KeyFilter {
    /// Whether a key is one of those that are asked for.
    package func fits(_ key: StoredKey) -> Bool {
        let record = key.record
        guard account == nil || account == record.account, tier == nil || tier == record.tier,
            status == nil || status == key.status(), !isDue || key.rotationDue() != nil
        else { return false }
        guard let text, !text.isEmpty else { return true }
        let wanted = Self.folded(text)
        return [record.id, record.name ?? "", record.hint ?? ""].contains { Self.folded($0).contains(wanted) }
    }

    /// ASCII letters in lower case and everything else as it is, as in the store's scripts.
    static func folded(_ text: String) -> String {
        String(
            decoding: text.utf8.map { (0x41...0x5a).contains($0) ? $0 + 0x20 : $0 }, as: UTF8.self)
    }
}
