import Keys
import Reactor
import Redis

/// What Redis does itself when keys are listed. Both scripts touch names that they find on the way, which one
/// Redis allows and a cluster does not.
enum ListScript {
    /// A part of the index, from the newest on, and of it the keys that fit.
    ///
    /// KEYS: the index, last uses, calls. ARGV: prefix; score and id after which to begin; entries to look
    /// at; keys wanted, 0 to count only; now; account, tier, status, text in lower case, `1` for those due
    /// for rotation (empty ones do not matter); seconds after which they are due.
    /// Reply: how many fit, score and id of the last entry looked at, 1 at the end of the index, and for each
    /// key its digest, last use, calls and fields.
    static let page = #"""
        local prefix, score, id = ARGV[1], ARGV[2], ARGV[3]
        local count, wanted = tonumber(ARGV[4]), tonumber(ARGV[5])
        local now, account, tier, status, text = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9], ARGV[10]
        local due, after = ARGV[11] ~= '', tonumber(ARGV[12])
        local first = 0
        if id ~= '' then
          local rank = redis.call('ZREVRANK', KEYS[1], id)
          first = rank and rank + 1 or redis.call('ZCOUNT', KEYS[1], '(' .. score, '+inf')
        end
        local entries = redis.call('ZREVRANGE', KEYS[1], first, first + count - 1, 'WITHSCORES')
        -- Only what the filter asks about is read.
        local fields, at = {'id', 'tier'}, {}
        local function need(wanted, ...)
          if not wanted then return end
          for _, name in ipairs({...}) do
            if not at[name] then
              fields[#fields + 1] = name
              at[name] = #fields
            end
          end
        end
        need(account ~= '', 'account')
        need(status ~= '' or due, 'status', 'expires_at', 'revoked_at')
        need(due, 'created_at', 'rotated_to')
        need(text ~= '', 'name', 'hint')
        local function holds(value)
          return value and string.find(string.lower(value), text, 1, true)
        end
        local function fits(id, r)
          if (r[1] or id) ~= id or not r[2] then return false end
          if tier ~= '' and r[2] ~= tier then return false end
          if account ~= '' and (r[at.account] or id) ~= account then return false end
          if status ~= '' or due then
            local standing = r[at.status] or 'active'
            if standing == 'revoked' or r[at.revoked_at] then standing = 'revoked'
            elseif r[at.expires_at] and now >= (tonumber(r[at.expires_at]) or 0) then standing = 'expired' end
            if status ~= '' and standing ~= status then return false end
            if due then
              if standing ~= 'active' or (r[at.rotated_to] and r[at.rotated_to] ~= '') then return false end
              local created = tonumber(r[at.created_at] or '')
              if not created or now - created < after then return false end
            end
          end
          return text == '' or holds(id) or holds(r[at.name]) or holds(r[at.hint])
        end
        local names = {}
        for i = 1, #entries, 2 do names[#names + 1] = prefix .. 'id:' .. entries[i] end
        local digests = #names > 0 and redis.call('MGET', unpack(names)) or {}
        local out = {0, score, id, #entries < 2 * count and 1 or 0}
        for i = 1, #entries, 2 do
          local id = entries[i]
          out[2], out[3] = entries[i + 1], id
          local hex = digests[(i + 1) / 2]
          local name = hex and prefix .. 'key:' .. hex
          local record = name and redis.pcall('HMGET', name, unpack(fields))
          -- A name that is no hash is nobody's key; anything else that fails is a failure.
          local problem = record and record.err
          if problem and not string.find(problem, 'WRONGTYPE', 1, true) then return record end
          if record and not problem and fits(id, record) then
            out[1] = out[1] + 1
            if wanted > 0 then
              out[#out + 1] = {hex, redis.call('HGET', KEYS[2], id), redis.call('HGET', KEYS[3], id),
                redis.call('HGETALL', name)}
              if out[1] == wanted then
                if i + 1 < #entries then out[4] = 0 end
                return out
              end
            end
          end
        end
        return out
        """#

    /// Gives records of other programs their entries in the index.
    ///
    /// KEYS: the index. ARGV: prefix, cursor of `SCAN`, how much to look at. Reply: the next cursor.
    static let adopt = #"""
        local prefix = ARGV[1]
        local found = redis.call(
          'SCAN', ARGV[2], 'MATCH', prefix .. 'key:*', 'COUNT', ARGV[3], 'TYPE', 'hash')
        for _, name in ipairs(found[2]) do
          local hex = string.sub(name, #prefix + 5)
          -- Keys of our own making have the usual id, and are known by it.
          local usual = 'key_' .. string.sub(hex, 1, 16)
          local isDigest = #hex == 64 and not string.find(hex, '[^0-9a-f]')
          if isDigest and not redis.call('ZSCORE', KEYS[1], usual) then
            local record = redis.call('HMGET', name, 'id', 'tier', 'created_at')
            local id = record[1] or usual
            if record[2] and #id > 0 and #id <= 128 and not redis.call('ZSCORE', KEYS[1], id) then
              local created = record[3] and string.find(record[3], '^%d+$') and record[3]
              redis.call('SET', prefix .. 'id:' .. id, hex, 'NX')
              redis.call('ZADD', KEYS[1], created or '0', id)
            end
          end
        end
        return found[1]
        """#
}

extension KeyStore {
    /// Keys in the whole database up to which a listing looks for records of other programs itself; beyond,
    /// only running gateways do, in the background.
    private static let adoptedKeysMax: Int64 = 500_000
    /// How long a look is good for.
    private static let adoptMicroseconds: Int64 = 2_000_000
    /// Names that one command looks at.
    private static let adoptChunk = 500

    /// Looks for records that other programs have written, and gives them their entries in the index.
    func adopt() throws(KeyStoreProblem) {
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
                "EVAL", ListScript.adopt, "1", indexName, prefix, cursor, "\(Self.adoptChunk)",
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
            try runAll(ids.map { ["ZSCORE", indexName, $0] }).map { $0.text == nil }
        }
        let isUnusual = try missing(digests.map(KeyRecord.defaultID))
        let unknown = zip(digests, isUnusual).filter(\.1).map(\.0)
        let records = try runAll(unknown.map { ["HGETALL", recordName($0)] })
        let keys = zip(unknown, records).compactMap { digest, value in
            value.fields.flatMap { StoredKey(digest, $0)?.record }
        }
        for (record, isMissing) in zip(keys, try missing(keys.map(\.id))) where isMissing {
            _ = try run(["SET", idName(record.id), record.digest.hexadecimal, "NX"])
            _ = try run(["ZADD", indexName, "\(record.createdAtSeconds ?? 0)", record.id])
        }
        return next
    }
}
