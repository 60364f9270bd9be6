// The debit in Redis: one script decides any number of accounts in one call, on Redis's own clock.
//
// KEYS     the windows of all items, in order.
// ARGV     lo, hi                  bounds on the instant, in microseconds of Redis time; 0 is none
//          then for each item      k, m, c   windows, requests that wait, permits that each request costs
//          and for its windows     N, W      permits, and length in microseconds
// Reply    now                     the instant that was used
//          then for each item      a         how many of the m requests are granted, the first ones
//                                  f         first instant at which one more request fits; 0: now, or never
//          and for its windows     r, o      permits left, below 0 after a limit was lowered, and the instant
//                                            at which the oldest permit stops counting; 0 when there is none
//
// A window is a list. Up to 4,096 permits it holds one instant a permit, so that the k-th oldest is one
// LINDEX away. Above, it begins with `r:<permits>` and goes on with runs `<instant>:<permits>`; instants in
// the same 1/4096 of the window share a run whose instant is the latest of them, which errs on the safe side.
// A list that has become runs stays so until it has emptied.
//
// Refused requests leave no trace, so a caller that hammers recovers as soon as its oldest permit leaves. The
// time to live is set with every grant: set once, a list in steady use would vanish and the limit with it.
// Numbers are passed as numbers or formatted with %.0f: Lua's own conversion keeps 14 digits, and instants
// have 16.

/// The script, and the bounds that its callers keep.
package enum TakeScript {
    /// Items of one call: Redis is busy for about a millisecond at most.
    package static let itemsMax = 64
    /// Permits of one item: what `unpack` takes safely.
    package static let permitsMax: Int64 = 1_000

    /// The script as text: its callers load it once a connection and call it by its digest.
    package static let source = #"""
        local t = redis.call('TIME')
        local now = t[1] * 1000000 + t[2]
        local lo, hi = tonumber(ARGV[1]), tonumber(ARGV[2])
        if lo > 0 and now < lo then now = lo end
        if hi > 0 and now > hi then now = hi end
        local out, p, q = {now}, 3, 1
        local function split(s)
          local at = string.find(s, ':', 1, true)
          return string.sub(s, 1, at - 1), tonumber(string.sub(s, at + 1))
        end
        -- Counts what no longer counts, from the front: entries, their permits, and whether that is all.
        local function stale(key, from, horizon)
          local gone, permits, step = 0, 0, 4
          while true do
            local part = redis.call('LRANGE', key, from + gone, from + gone + step - 1)
            for i = 1, #part do
              local at, n = part[i], 1
              if from == 1 then at, n = split(at) end
              if tonumber(at) >= horizon then return gone, permits, false end
              gone, permits = gone + 1, permits + n
            end
            if #part < step then return gone, permits, true end
            step = 64
          end
        end
        -- Drops what no longer counts; returns the permits that do, and whether the list holds runs.
        local function prune(key, horizon)
          local head = redis.call('LINDEX', key, 0)
          if not head then return 0, false end
          if string.sub(head, 1, 1) ~= 'r' then
            local n = redis.call('LLEN', key)
            if tonumber(head) >= horizon then return n, false end
            local gone = stale(key, 0, horizon)
            redis.call('LTRIM', key, gone, -1)
            return n - gone, false
          end
          local _, used = split(head)
          local gone, permits, all = stale(key, 1, horizon)
          if all then
            redis.call('DEL', key)
            return 0, false
          end
          if gone > 0 then
            -- The last stale run makes room for the head.
            used = used - permits
            redis.call('LTRIM', key, gone, -1)
            redis.call('LSET', key, 0, string.format('r:%.0f', used))
          end
          return used, true
        end
        -- Turns one instant a permit into runs.
        local function gather(key, grain, W)
          local all = redis.call('LRANGE', key, 0, -1)
          redis.call('DEL', key)
          redis.call('RPUSH', key, string.format('r:%.0f', #all))
          local at, n = nil, 0
          for i = 1, #all do
            local x = tonumber(all[i])
            if at and math.floor(x / grain) ~= math.floor(at / grain) then
              redis.call('RPUSH', key, string.format('%.0f:%.0f', at, n))
              n = 0
            end
            at, n = x, n + 1
          end
          redis.call('RPUSH', key, string.format('%.0f:%.0f', at, n))
          redis.call('PEXPIRE', key, math.ceil(W / 1000) + 1000)
        end
        local function spend(key, n, used, runs, grain)
          if not runs then
            local v = {}
            for i = 1, n do v[i] = now end
            redis.call('RPUSH', key, unpack(v))
            return
          end
          local head = string.format('r:%.0f', used + n)
          if used == 0 then
            redis.call('RPUSH', key, head, string.format('%.0f:%.0f', now, n))
            return
          end
          redis.call('LSET', key, 0, head)
          local at, last = split(redis.call('LINDEX', key, -1))
          at = tonumber(at)
          if math.floor(at / grain) == math.floor(now / grain) then
            -- A clock that has stepped back must not take a run with it.
            redis.call('LSET', key, -1, string.format('%.0f:%.0f', math.max(at, now), last + n))
            return
          end
          redis.call('RPUSH', key, string.format('%.0f:%.0f', now, n))
        end
        -- The instant of the x-th oldest permit.
        local function nth(key, x, runs)
          if not runs then return tonumber(redis.call('LINDEX', key, x - 1)) end
          local i, step = 1, 1
          while true do
            local part = redis.call('LRANGE', key, i, i + step - 1)
            for j = 1, #part do
              local at, n = split(part[j])
              x = x - n
              if x <= 0 then return tonumber(at) end
            end
            if #part < step then return nil end
            i, step = i + step, 64
          end
        end
        while ARGV[p] do
          local k, m, c = tonumber(ARGV[p]), tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2])
          local a, used, runs, never = m, {}, {}, false
          for i = 1, k do
            local key = KEYS[q + i - 1]
            local N, W = tonumber(ARGV[p + 1 + 2 * i]), tonumber(ARGV[p + 2 + 2 * i])
            used[i], runs[i] = prune(key, now - W)
            if N > 4096 and not runs[i] then
              if used[i] > 0 then gather(key, math.max(1, math.floor(W / 4096)), W) end
              runs[i] = true
            end
            local room = math.floor((N - used[i]) / c)
            if room < a then a = room end
            if c > N then never = true end
          end
          if a < 0 then a = 0 end
          local at = #out + 1
          out[at], out[at + 1] = a, 0
          for i = 1, k do
            local key = KEYS[q + i - 1]
            local N, W = tonumber(ARGV[p + 1 + 2 * i]), tonumber(ARGV[p + 2 + 2 * i])
            if a > 0 then
              spend(key, a * c, used[i], runs[i], math.max(1, math.floor(W / 4096)))
              used[i] = used[i] + a * c
              redis.call('PEXPIRE', key, math.ceil(W / 1000) + 1000)
            end
            local oldest = used[i] > 0 and nth(key, 1, runs[i])
            if not never and used[i] + c > N then
              local x = nth(key, used[i] + c - N, runs[i])
              if x and x + W + 1 > out[at + 1] then out[at + 1] = x + W + 1 end
            end
            out[#out + 1] = N - used[i]
            out[#out + 1] = oldest and oldest + W + 1 or 0
          end
          p, q = p + 3 + 2 * k, q + k
        end
        return out
        """#
}
