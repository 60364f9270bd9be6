import Keys
import Reactor
import Redis

// Adoption: records that other programs have written without the names by which a key is found get these.

extension KeyStore {
    /// Gives records of other programs their entries in the index. It touches names that it finds on the way,
    /// which one Redis allows and a cluster does not.
    ///
    /// KEYS: the index. ARGV: prefix, cursor of `SCAN`, how much to look at. Reply: the next cursor.
    private static let adoptScript = #"""
        local prefix, first = ARGV[1], #ARGV[1] + 5
        -- As the gateway reads ids: UTF-8 without control characters and braces, and no blank at the ends.
        local function is_id(id)
          if #id == 0 or #id > 128 or string.find(id, '^ ') or string.find(id, ' $') then return false end
          if not string.find(id, '[^\33-\122]') then return true end
          for _, bad in ipairs({'\194[\128-\159]', '\224[\128-\159]', '\237[\160-\191]', '\240[\128-\143]',
            '\244[\144-\191]', '\239\191\189'}) do
            if string.find(id, bad) then return false end
          end
          id = string.gsub(id, '[\194-\223][\128-\191]', 'x')
          id = string.gsub(id, '[\224-\239][\128-\191][\128-\191]', 'x')
          id = string.gsub(id, '[\240-\244][\128-\191][\128-\191][\128-\191]', 'x')
          return not string.find(id, '[%c{}\128-\255]')
        end
        local found = redis.call('SCAN', ARGV[2], 'MATCH', prefix .. 'key:*', 'COUNT', ARGV[3])
        -- Keys of our own making have the usual id, and are known by it.
        local names, usual = found[2], {}
        for i, name in ipairs(names) do usual[i] = 'key_' .. string.sub(name, first, first + 15) end
        local scores = #names > 0 and redis.pcall('ZMSCORE', KEYS[1], unpack(usual)) or {}
        -- Before Redis 6.2 they are asked for one by one.
        local isOld = scores.err
        for i, name in ipairs(names) do
          local score = not isOld and scores[i] or isOld and redis.call('ZSCORE', KEYS[1], usual[i])
          local hex = not score and string.sub(name, first)
          if hex and #hex == 64 and not string.find(hex, '[^0-9a-f]') then
            local record = redis.pcall('HMGET', name, 'id', 'tier', 'created_at')
            local id = record[1] or usual[i]
            if record[2] and is_id(id) then
              -- The id may be that of a key that has gone, or has another id by now.
              local holder = redis.pcall('GET', prefix .. 'id:' .. id)
              local held = type(holder) == 'string'
                and redis.pcall('HMGET', prefix .. 'key:' .. holder, 'id', 'tier')
              local isHeld = held and held[2]
                and (held[1] or 'key_' .. string.sub(holder, 1, 16)) == id
              if not isHeld then redis.call('SET', prefix .. 'id:' .. id, hex) end
              if not isHeld or not redis.call('ZSCORE', KEYS[1], id) then
                local created = record[3] and #record[3] <= 12 and string.find(record[3], '^%d+$')
                  and record[3]
                redis.call('ZADD', KEYS[1], created or '0', id)
              end
            end
          end
        end
        return found[1]
        """#

    /// Keys in the whole database up to which a listing looks for records of other programs itself; beyond,
    /// only running gateways do, in the background.
    private static let adoptedKeysMax: Int64 = 500_000
    /// How long a look is good for.
    private static let adoptMicroseconds: Int64 = 2_000_000
    /// Names that one command looks at.
    private static let adoptChunk = 500

    /// Looks for records that other programs have written, and gives them their entries in the index.
    func adopt() throws(KeyStoreProblem) {
        guard !isPassing else { return }
        let now = MonotonicClock.nowMicroseconds()
        if let last = adoptedMicroseconds, now - last < Self.adoptMicroseconds { return }
        guard let size = try run(["DBSIZE"]).integer, size <= Self.adoptedKeysMax else { return }
        _ = try adoptAll { true }
        adoptedMicroseconds = now
    }

    /// The same, however many names there are.
    ///
    /// - Parameter pause: called between two commands; false ends the look.
    package func adoptAll(pause: () -> Bool) throws(KeyStoreProblem) {
        guard !isMemory else { return }
        var cursor = "0"
        repeat {
            if spreads {
                cursor = try adoptSpread(cursor)
                continue
            }
            let reply = try run([
                "EVAL", Self.adoptScript, "1", indexName, prefix, cursor, "\(Self.adoptChunk)",
            ])
            guard let next = reply.text else {
                throw .unavailable("the store answered SCAN with something else")
            }
            cursor = next
        } while cursor != "0" && pause()
    }

    /// The same in a cluster, where every name is asked for at its own place.
    ///
    /// - Returns: the next cursor.
    private func adoptSpread(_ cursor: String) throws(KeyStoreProblem) -> String {
        let reply = try run([
            "SCAN", cursor, "MATCH", "\(prefix)key:*", "COUNT", "\(Self.adoptChunk)", "TYPE", "hash",
        ])
        guard let parts = reply.elements, parts.count == 2, let next = parts[0].text else {
            throw .unavailable("the store answered SCAN with something else")
        }
        let digests = (parts[1].elements ?? []).compactMap { name -> Digest256? in
            guard let hex = name.text?.suffix(Digest256.hexadecimalCount) else { return nil }
            // Names are written in lower case; what is not is nobody's key.
            return Digest256(hex: String(hex)).flatMap { $0.hexadecimal == hex ? $0 : nil }
        }
        func missing(_ ids: [String]) throws(KeyStoreProblem) -> [Bool] {
            guard !ids.isEmpty else { return [] }
            if let scores = try runAll([["ZMSCORE", indexName] + ids])[0].elements {
                return scores.map { $0.text == nil }
            }
            return try runAll(ids.map { ["ZSCORE", indexName, $0] }).map { $0.text == nil }
        }
        let isUnusual = try missing(digests.map(KeyRecord.defaultID))
        let unknown = zip(digests, isUnusual).filter(\.1).map(\.0)
        let records = try runAll(unknown.map { ["HGETALL", recordName($0)] })
        let keys = zip(unknown, records).compactMap { digest, value in
            value.fields.flatMap { StoredKey(digest, $0)?.record }
        }
        let isUnheld = try unheld(keys)
        for ((record, isMissing), isUnheld) in zip(zip(keys, try missing(keys.map(\.id))), isUnheld)
        where isMissing || isUnheld {
            if isUnheld { _ = try run(["SET", idName(record.id), record.digest.hexadecimal]) }
            _ = try run(["ZADD", indexName, "\(record.createdAtSeconds ?? 0)", record.id])
        }
        return next
    }

    /// Whether the ids of these records lead nowhere, or to a key that has another id by now.
    private func unheld(_ records: [KeyRecord]) throws(KeyStoreProblem) -> [Bool] {
        let holders = try runAll(records.map { ["GET", idName($0.id)] }).map { value in
            value.text.flatMap { Digest256(hex: $0) }
        }
        // Most are held by the record itself, which needs no other look.
        let others = zip(records, holders).map { $0.digest == $1 ? nil : $1 }
        let values = try runAll(others.compactMap { $0.map { ["HMGET", recordName($0), "id", "tier"] } })
        var held = values.makeIterator()
        return zip(zip(records, holders), others).map { pair, other in
            guard let other else { return pair.1 == nil }
            guard let fields = held.next()?.elements, fields.count == 2, fields[1].text != nil else {
                return true
            }
            return (fields[0].text ?? KeyRecord.defaultID(of: other)) != pair.0.id
        }
    }
}
