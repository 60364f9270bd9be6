import Configuration
import Foundation
import Keys
import Reactor
import Redis

// Listing: the index is walked from the newest key on, some hundred at a time. Of each a search reads the few
// fields that it asks about, and whole only those that may fit. Every command is a small one; they are sent
// some hundred in one write, of which Redis serves 16 KiB at a time before it turns to others.
//
// A cursor names the last key that was looked at. Keys that are added meanwhile are newer and stand before
// it, so that a listing shows every key that was there when it began, once.

extension KeyStore {
    /// Entries of the index that one step looks at: less than half a millisecond of Redis's time for the
    /// longest of its commands.
    static let chunk = 512
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

    // MARK: One step

    private struct Chunk {
        var keys: [StoredKey] = []
        var count = 0
        /// Where to go on; nil at the end.
        var next: Cursor?
    }

    /// - Parameter wanted: at most so many keys; nil counts all and keeps none.
    private func chunk(
        _ filter: KeyFilter, after cursor: Cursor, wanted: Int?
    ) throws(KeyStoreProblem) -> Chunk {
        guard case .stored(let score, let id) = cursor else { return Chunk() }
        let preselection = Preselection(filter, nowSeconds: WallClock.nowSeconds())
        let size = preselection == nil ? min(wanted ?? Self.chunk, Self.chunk) : Self.chunk
        let entries = try entries(after: score, id, count: size)
        let digests = try digests(ofIDs: entries.map(\.id))
        var candidates = entries.indices.filter { digests[$0] != nil }
        if let preselection {
            let start = Array("\(prefix)key:".utf8)
            let names = candidates.map { start + (digests[$0] ?? []) }
            let wanted = try select(names, fields: preselection.fields) { place, reply in
                preselection.admits(id: entries[candidates[place]].id, reply)
            }
            candidates = wanted.map { candidates[$0] }
        }
        func position(of place: Int) -> Cursor {
            .stored(score: Self.text(entries[place].score), id: Self.text(entries[place].id))
        }
        var result = Chunk()
        if entries.count == size { result.next = position(of: size - 1) }
        var rest = candidates[...]
        while !rest.isEmpty {
            let slice = rest.prefix(wanted.map { $0 - result.keys.count } ?? Self.chunk)
            rest = rest.dropFirst(slice.count)
            let found = slice.map { (Self.text(entries[$0].id), Self.text(digests[$0] ?? [])) }
            let keys = try read(found).filter(filter.fits)
            result.count += keys.count
            guard let wanted, let last = slice.last else { continue }
            result.keys += keys
            guard result.keys.count == wanted else { continue }
            if last + 1 < entries.count { result.next = position(of: last) }
            break
        }
        return result
    }

    private static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

    /// Ids with their scores, as Redis writes them; bytes, because a search passes by most of them.
    private func entries(
        after score: String, _ id: String, count: Int
    ) throws(KeyStoreProblem) -> [(id: [UInt8], score: [UInt8])] {
        var first: Int64 = 0
        if !id.isEmpty {
            if let rank = try run(["ZREVRANK", indexName, id]).integer {
                first = rank + 1
            } else {
                first = try run(["ZCOUNT", indexName, "(\(score)", "+inf"]).integer ?? 0
            }
        }
        let range = ["ZREVRANGE", indexName, "\(first)", "\(first + Int64(count) - 1)", "WITHSCORES"]
        guard let values = try run(range).elements, values.count % 2 == 0 else {
            throw .unavailable("the store answered ZREVRANGE with something else")
        }
        return stride(from: 0, to: values.count, by: 2).map {
            (values[$0].bytes ?? [], values[$0 + 1].bytes ?? [])
        }
    }

    /// What stands under the ids; nil where nothing does. In a cluster each has a place of its own.
    private func digests(ofIDs ids: [[UInt8]]) throws(KeyStoreProblem) -> [[UInt8]?] {
        guard !ids.isEmpty else { return [] }
        if spreads { return try runAll(ids.map { ["GET", idName(Self.text($0))] }).map(\.bytes) }
        let start = Array("\(prefix)id:".utf8)
        let values = try run([Array("MGET".utf8)] + ids.map { start + $0 }).elements
        guard let values, values.count == ids.count else {
            throw .unavailable("the store answered MGET with something else")
        }
        return values.map(\.bytes)
    }

    /// Whole keys, at most `chunk`, without those whose records cannot be used or belong to another id.
    func read(_ found: [(id: String, digest: String)]) throws(KeyStoreProblem) -> [StoredKey] {
        guard !found.isEmpty else { return [] }
        let ids = found.map(\.id)
        let replies = try runAll(
            [["HMGET", "\(prefix)seen"] + ids, ["HMGET", "\(prefix)calls"] + ids]
                + found.map { ["HGETALL", "\(prefix)key:\($0.digest)"] })
        for case .error(let text) in replies where !text.hasPrefix("WRONGTYPE") { throw .unavailable(text) }
        let seen = replies[0].elements ?? []
        let calls = replies[1].elements ?? []
        guard seen.count == ids.count, calls.count == ids.count else {
            throw .unavailable("the store answered HMGET with something else")
        }
        var keys: [StoredKey] = []
        for (index, (id, hex)) in found.enumerated() {
            guard let digest = Digest256(hex: hex), let fields = replies[2 + index].fields,
                var key = StoredKey(digest, fields), key.record.id == id
            else { continue }
            key.addUse(seen: seen[index], calls: calls[index])
            keys.append(key)
        }
        return keys
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
