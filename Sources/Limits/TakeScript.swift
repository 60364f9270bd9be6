// The debit in Redis: one script decides any number of accounts in one call, on Redis's own clock.
//
// KEYS     for each window of each item, in order: the list of its permits, and the hash of its leases, or
//          the list again where nobody is given leases
// ARGV     lo, mid, hi             what the caller knows of the instant, in microseconds of Redis time; lo 0
//                                  is nothing, see StoreClock
//          skew                    by how much Redis's clock is known to have been set forward: at least, and
//                                  at most
//          me, id                  the caller, and the number of this call, above those of all before it
//          share                   callers that may hold leases at the same time
//          channel                 where leases are called back
//          then for each item      k, m, c   windows, requests that wait, permits that each request costs
//                                  s, w, l   number of the call that granted the caller's lease, 0 when it
//                                            never had one, -1 when this call is not about leases; permits
//                                            wanted as a lease, and for how many microseconds
//                                  j, u      how many of the pairs that follow report what was spent of the
//                                            lease, and how many what was spent without asking Redis
//                                  j + u times: instant, permits; each group in order of time
//          and for its windows     N, W      permits, and length in microseconds
// Reply    now, raw                the instant at which permits were written down, and Redis's own clock
//          then for each item      a         how many of the m requests are granted, the first ones
//                                  f         first instant at which one more request fits; 0: now, or never
//                                  x         permits that others hold as leases: a refusal may be premature
//                                  g, e      permits leased to the caller, and until when; 0 for none
//          and for its windows     r, o      permits left, below 0 after a limit was lowered, and the instant
//                                            at which the oldest permit stops counting; 0 when there is none
//
// A window is a list. Up to 4,096 permits it holds one instant a permit, so that the k-th oldest is one
// LINDEX away. Above, it begins with `r:<permits>` and goes on with runs `<instant>:<permits>`; instants in
// the same 1/4096 of the window share a run whose instant is the latest of them, which errs on the safe side.
// A list that has become runs stays so until it has emptied.
//
// A lease is a field of the window's hash: its holder, and `<permits>:<end>:<call>`. It counts in full until
// its holder reports what was spent of it, at instants that are not before the true ones; a lease whose
// holder stays silent is written down in full at its end. So whenever something is granted, every permit that
// was granted before and may have been spent within the window is counted, and no window ever holds more than
// its limit. Leases are given only while more than a quarter of every window is left, and never more than
// half of what is left to all holders together; the rest is granted one by one.
//
// A call that is late, because its connection broke and Redis read it afterwards, knows nothing of the lease
// that its successor was given: it has a lower number and is not obeyed. A lease whose grant never reached
// its holder is older than the holder's next call and is dropped, for nobody has spent of it.
//
// Refused requests leave no trace, so a caller that hammers recovers as soon as its oldest permit leaves. The
// time to live is set with every grant: set once, a list in steady use would vanish and the limit with it. It
// ends by Redis's clock, also when that is set, so it is a day longer than the window.
// Numbers are passed as numbers or formatted with %.0f: Lua's own conversion keeps 14 digits, and instants
// have 16.

/// The script, and the bounds that its callers keep.
package enum TakeScript {
    /// Items of one call: Redis is busy for about a millisecond at most.
    package static let itemsMax = 64
    /// Permits of one item: what `unpack` takes safely.
    package static let permitsMax: Int64 = 1_000
    /// How long after its end a lease's report is still awaited, in microseconds. Until then it counts in
    /// full, afterwards it is written down in full.
    package static let graceMicroseconds: Int64 = 200_000

    /// How much longer than its window a list of permits is kept: Redis's clock may be set forward by this
    /// much, and no window is lost.
    package static let keptMicroseconds: Int64 = 86_400_000_000

    /// The channel on which leases are called back. A message is the name of a lease's key.
    package static func recallChannel(prefix: String) -> String { prefix + "recall" }

    /// The account in the name of one of its keys: `gateway:lease:{account}:60s`.
    package static func account(inKey name: String) -> String? {
        guard let start = name.firstIndex(of: "{"), let end = name.lastIndex(of: "}"), start < end else {
            return nil
        }
        return String(name[name.index(after: start)..<end])
    }

    /// The script as text: its callers load it once a connection and call it by its digest.
    package static let source = #"""
        local t = redis.call('TIME')
        local lo, mid, hi = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        local raw = t[1] * 1000000 + t[2]
        -- Permits are written down at `now`, not before the true instant, and let go by `low`, not after it.
        local now, low = raw - tonumber(ARGV[4]), raw - tonumber(ARGV[5])
        if lo > 0 then
          if now < lo or low > hi then
            now, low = hi, lo
          elseif low < lo or low > mid then
            low = lo
          end
        end
        local me, id, share = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
        local out, p, q = {now, raw}, 10, 1
        local function keep(W) return math.ceil((W + \#(keptMicroseconds)) / 1000) end
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
          redis.call('PEXPIRE', key, keep(W))
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
        -- Puts pairs of instant and permits, in order of time, among those of the list.
        local function insert(key, fresh, used, runs, grain)
          local total = 0
          for i = 1, #fresh do total = total + fresh[i][2] end
          local from = runs and 1 or 0
          local n = redis.call('LLEN', key)
          local keep, later, step = n, {}, 4
          while keep > from do
            local part = redis.call('LRANGE', key, math.max(from, keep - step), keep - 1)
            local found = false
            for i = #part, 1, -1 do
              local at, count = part[i], 1
              if runs then at, count = split(at) end
              at = tonumber(at)
              found = at <= fresh[1][1]
              if found then break end
              later[#later + 1] = {at, count}
              keep = keep - 1
            end
            if found then break end
            step = 64
          end
          local all, j = {}, #later
          for i = 1, #fresh do
            while j > 0 and later[j][1] <= fresh[i][1] do
              all[#all + 1] = later[j]
              j = j - 1
            end
            all[#all + 1] = fresh[i]
          end
          for i = j, 1, -1 do all[#all + 1] = later[i] end
          if keep == 0 then
            redis.call('DEL', key)
          elseif keep < n then
            redis.call('LTRIM', key, 0, keep - 1)
          end
          local v = {}
          local function push(x)
            v[#v + 1] = x
            if #v == 1000 then
              redis.call('RPUSH', key, unpack(v))
              v = {}
            end
          end
          if runs then
            local head = string.format('r:%.0f', used + total)
            local at, count = nil, 0
            if n == 0 then
              push(head)
            else
              redis.call('LSET', key, 0, head)
              if keep > 1 then
                at, count = split(redis.call('RPOP', key))
                at = tonumber(at)
              end
            end
            for i = 1, #all do
              local t, c = all[i][1], all[i][2]
              if at and math.floor(at / grain) == math.floor(t / grain) then
                at, count = math.max(at, t), count + c
              else
                if at then push(string.format('%.0f:%.0f', at, count)) end
                at, count = t, c
              end
            end
            push(string.format('%.0f:%.0f', at, count))
          else
            for i = 1, #all do
              for _ = 1, all[i][2] do push(all[i][1]) end
            end
          end
          if #v > 0 then redis.call('RPUSH', key, unpack(v)) end
          return total
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
        -- Settles what is due of a window's leases. Returns the pairs to write down, the permits still out
        -- on lease, those of others, the last end, and whether this call is older than the caller's lease.
        local function settle(lease, s, report, horizon)
          local due, out, others, last, old = {}, 0, 0, 0, false
          local all = lease and redis.call('HGETALL', lease) or {}
          for i = 1, #all, 2 do
            local n, e, call = string.match(all[i + 1], '^(%d+):(%d+):(%d+)$')
            n, e, call = tonumber(n) or 0, tonumber(e) or 0, tonumber(call) or 0
            local own = all[i] == me and s >= 0
            if own and call <= id then
              if call == s then
                for j = 1, #report do
                  if report[j][1] >= horizon then due[#due + 1] = report[j] end
                end
              elseif call < s and e >= horizon then
                due[#due + 1] = {e, n}
              end
              redis.call('HDEL', lease, me)
            elseif not own and e + \#(graceMicroseconds) < low then
              if e >= horizon then due[#due + 1] = {e, n} end
              redis.call('HDEL', lease, all[i])
            else
              old = old or own
              out = out + n
              if all[i] ~= me then others = others + n end
              if e > last then last = e end
            end
          end
          return due, out, others, last, old
        end
        local function earlier(x, y) return x[1] < y[1] end
        while ARGV[p] do
          local k, m, c = tonumber(ARGV[p]), tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2])
          local s, w, l = tonumber(ARGV[p + 3]), tonumber(ARGV[p + 4]), tonumber(ARGV[p + 5])
          local j, u = tonumber(ARGV[p + 6]), tonumber(ARGV[p + 7])
          local report, unasked = {}, {}
          for i = 1, j + u do
            local pair = {math.min(tonumber(ARGV[p + 6 + 2 * i]), now), tonumber(ARGV[p + 7 + 2 * i])}
            if i <= j then report[i] = pair else unasked[i - j] = pair end
          end
          local b = p + 6 + 2 * (j + u)
          local a, x, never, old = m, 0, false, false
          local listed, leased, runs, last = {}, {}, {}, {}
          for i = 1, k do
            local key, lease = KEYS[q + 2 * i - 2], KEYS[q + 2 * i - 1]
            if lease == key then lease = nil end
            local N, W = tonumber(ARGV[b + 2 * i]), tonumber(ARGV[b + 1 + 2 * i])
            local grain = math.max(1, math.floor(W / 4096))
            listed[i], runs[i] = prune(key, low - W)
            if N > 4096 and not runs[i] then
              if listed[i] > 0 then gather(key, grain, W) end
              runs[i] = true
            end
            local due, others, late
            due, leased[i], others, last[i], late = settle(lease, s, report, low - W)
            old = old or late
            if not late then
              for y = 1, #unasked do
                if unasked[y][1] >= low - W then due[#due + 1] = unasked[y] end
              end
            end
            if #due > 0 then
              table.sort(due, earlier)
              listed[i] = listed[i] + insert(key, due, listed[i], runs[i], grain)
              redis.call('PEXPIRE', key, keep(W))
            end
            if others > x then x = others end
            local room = math.floor((N - listed[i] - leased[i]) / c)
            if room < a then a = room end
            if c > N then never = true end
          end
          if a < 0 or old then a = 0 end
          local g = old and 0 or w
          for i = 1, k do
            local N = tonumber(ARGV[b + 2 * i])
            local room = N - listed[i] - leased[i] - a * c
            if room * 4 <= N then
              g = 0
            elseif g > room / (2 * share) then
              g = math.floor(room / (2 * share))
            end
          end
          if g < 2 * c then g = 0 end
          local at = #out + 1
          out[at], out[at + 1], out[at + 2] = a, 0, x
          out[at + 3], out[at + 4] = g, g > 0 and now + l or 0
          for i = 1, k do
            local key, lease = KEYS[q + 2 * i - 2], KEYS[q + 2 * i - 1]
            local N, W = tonumber(ARGV[b + 2 * i]), tonumber(ARGV[b + 1 + 2 * i])
            if a > 0 then
              spend(key, a * c, listed[i], runs[i], math.max(1, math.floor(W / 4096)))
              listed[i] = listed[i] + a * c
              redis.call('PEXPIRE', key, keep(W))
            end
            if g > 0 then
              redis.call('HSET', lease, me, string.format('%.0f:%.0f:%.0f', g, now + l, id))
              redis.call('PEXPIRE', lease, keep(W))
            end
            local used = listed[i] + leased[i]
            local oldest = listed[i] > 0 and nth(key, 1, runs[i])
            if not never and used + c > N then
              local back = used + c - N
              local free = last[i]
              if back <= listed[i] then free = nth(key, back, runs[i]) or free end
              if free + W + 1 > out[at + 1] then out[at + 1] = free + W + 1 end
            end
            out[#out + 1] = N - used - g
            out[#out + 1] = oldest and oldest + W + 1 or 0
          end
          if a < m and x > 0 and not never then redis.pcall('PUBLISH', ARGV[9], KEYS[q + 1]) end
          p, q = b + 2 + 2 * k, q + 2 * k
        end
        return out
        """#
}
