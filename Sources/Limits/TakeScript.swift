// The debit in Redis: one script decides any number of accounts in one call, on Redis's own clock.
//
// KEYS     the list of each window of each item, in order
// ARGV     lo, mid, hi             what the caller knows of the instant, in microseconds of Redis time; lo 0
//                                  is nothing, see StoreClock
//          skew                    by how much Redis's clock is known to have been set forward: at least, and
//                                  at most
//          me, id                  the caller, and the number of this call, above those of all before it
//          share                   callers that may hold leases at the same time
//          channel                 where leases are called back
//          history                 name of the history that began with a loss of writes; empty without one
//          then for each item      k, m, c   windows, requests that wait, permits that each request costs
//                                  s, w, l   number of the call that granted the caller's lease, 0 when it
//                                            never had one, -1 when this call is not about leases; permits
//                                            wanted as a lease, and for how many microseconds
//                                  j, u, v   how many of the entries that follow report what was spent of the
//                                            lease, what was spent without asking Redis, and what the caller
//                                            has let in of late, of which Redis may have lost something
//                                  j times: instant, permits
//                                  u times: instant, permits, number of the call that told of it first
//                                  v times: instant, permits
//          and for its windows     N, W      permits, and length in microseconds
// Reply    now, raw                the instant at which permits were written down, and Redis's own clock
//          then for each item      a         how many of the m requests are granted, the first ones; -1 when
//                                            what stands in Redis is not a window
//                                  f         first instant at which one more request fits; 0: now, or never
//                                  x         permits that others hold as leases: a refusal may be premature
//                                  g, e      permits leased to the caller, and until when; 0 for none
//          and for its windows     r, o      permits left, below 0 after a limit was lowered, and the instant
//                                            at which the oldest permit stops counting; 0 when there is none
//
// A window is a list, and all of an account's lists are in one slot of a cluster. Up to 4,096 permits it
// holds one instant a permit, so that the k-th oldest is one LINDEX away. Above, and when somebody holds a
// lease, it begins with a head, `r:<permits>`, and goes on with runs, `<instant>:<permits>`; above 4,096
// permits instants in the same 1/4096 of the window share a run whose instant is the latest of them, which
// errs on the safe side. A list that has become runs stays so until it has emptied.
//
// Each lease stands in the head: `;<holder>=<permits>:<end>:<call>`. It counts in full until its holder
// reports what was spent of it, at instants that are not before the true ones; a lease whose holder stays
// silent is written down in full at its end. So whenever something is granted, every permit that was
// granted before and may have been spent within the window is counted, and no window ever holds more than
// its limit. Leases are given only while more than a quarter of every window is left, and never more than
// half of what is left to all holders together; the rest is granted one by one.
//
// A call that is late, because its connection broke and Redis read it afterwards, knows nothing of the
// lease that its successor was given: it has a lower number and is not obeyed. A lease whose grant never
// reached its holder is older than the holder's next call and is dropped, for nobody has spent of it.
//
// What was spent without asking is told until an answer comes. Where it has been written down the head notes
// the call that told it, as a lease of no permits that ends when none of it counts any longer. What the same
// holder tells again, first told by that call or one before it, stands there already: every call in between
// has told it too. Without the note, which others drop at its end, it is written down twice rather than not
// at all. Scripts of before take the note for a lease, of which nothing is to be written down.
//
// A replica that takes over lacks the last writes, which are the last instants. The first call of the new
// history notes in the head where the list ended, `@<history>:<instant>`; of what callers then tell that
// they have let in, what is later than that is put back.
//
// Refused requests leave no trace, so a caller that hammers recovers as soon as its oldest permit leaves.
// The time to live is set again and again: set once, a list in steady use would vanish and the limit with
// it. It ends by Redis's clock, also when that is set, so it is a day longer than the window. Numbers are
// passed as numbers or formatted with %.0f: Lua's own conversion keeps 14 digits, and instants have 16.

/// The script, and the bounds that its callers keep.
package enum TakeScript {
    /// Items of one call: Redis is busy for about a millisecond at most.
    package static let itemsMax = 64
    /// Permits of one item: what `unpack` takes safely.
    package static let permitsMax: Int64 = 1_000
    /// How long after its end a lease's report is still awaited, in microseconds. Until then it counts in
    /// full, afterwards it is written down in full.
    package static let graceMicroseconds: Int64 = 200_000

    /// How much longer than its window a list of permits is kept, so that no window is lost when Redis's
    /// clock is set forward.
    package static let keptMicroseconds: Int64 = 86_400_000_000
    /// A step of Redis's clock above this may have ended lists: the time to live is an hour old at most.
    package static let stepMaxMicroseconds: Int64 = keptMicroseconds - 2 * 3_600_000_000

    /// The channel on which leases are called back. A message is the name of a window's list.
    package static func recallChannel(prefix: String) -> String { prefix + "recall" }

    /// The account in the name of one of its windows: `gateway:limit:{account}:60s`.
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
        local me, id, share, history = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[10]
        local out, p, q = {now, raw}, 11, 1
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
        -- A window as Redis keeps it, without what no longer counts.
        local function open(key, N, W)
          local w = {key = key, N = N, W = W, horizon = low - W, used = 0, leases = {}}
          w.grain = N > 4096 and math.floor(W / 4096) or 1
          local head = redis.call('LINDEX', key, 0)
          if not head then return w end
          w.there = true
          if string.sub(head, 1, 1) ~= 'r' then
            w.used, w.first = redis.call('LLEN', key), tonumber(head)
            if w.first < w.horizon then
              local gone = stale(key, 0, w.horizon)
              redis.call('LTRIM', key, gone, -1)
              w.used, w.first = w.used - gone, nil
              w.there = w.used > 0
            end
            return w
          end
          w.runs = true
          local used, past, cut, rest = string.match(head, '^r:(%d+)@?([^;:]*):?(%d*)(.*)$')
          w.used, w.past, w.cut = tonumber(used), past, tonumber(cut)
          for holder, n, e, call in string.gmatch(rest, ';([^=]+)=(%d+):(%d+):(%d+)') do
            w.leases[holder] = {tonumber(n), tonumber(e), tonumber(call)}
          end
          local gone, permits = stale(key, 1, w.horizon)
          if w.used == permits and history == '' and not next(w.leases) then
            redis.call('DEL', key)
            w.used, w.runs, w.there = 0, nil, nil
          elseif gone > 0 then
            -- The last stale run makes room for the head.
            redis.call('LTRIM', key, gone, -1)
            w.used, w.changed = w.used - permits, true
          end
          return w
        end
        -- From now on runs, behind a head.
        local function gather(w)
          if w.runs then return end
          local v = {'r:0'}
          local function push(x)
            v[#v + 1] = x
            if #v == 1000 then
              redis.call('RPUSH', w.key, unpack(v))
              v = {}
            end
          end
          if w.there then
            local all = redis.call('LRANGE', w.key, 0, -1)
            redis.call('DEL', w.key)
            local at, n = nil, 0
            for i = 1, #all do
              local x = tonumber(all[i])
              if at and math.floor(x / w.grain) ~= math.floor(at / w.grain) then
                push(string.format('%.0f:%.0f', at, n))
                n = 0
              end
              at, n = x, n + 1
            end
            push(string.format('%.0f:%.0f', at, n))
          end
          if #v > 0 then redis.call('RPUSH', w.key, unpack(v)) end
          w.runs, w.there, w.changed, w.touched, w.first = true, true, true, true, nil
        end
        local function spend(w, n)
          if not w.runs then
            -- The time to live is set anew once an hour: it is long enough for that, and a list whose permits
            -- are all of this hour has been given it in this hour.
            if not w.first or math.floor(w.first / 3600000000) ~= math.floor(now / 3600000000) then
              w.touched = true
            end
            if w.used == 0 then w.first = now end
            local v = {}
            for i = 1, n do v[i] = now end
            redis.call('RPUSH', w.key, unpack(v))
            w.there, w.used = true, w.used + n
            return
          end
          w.changed, w.touched = true, true
          if w.used > 0 then
            local at, last = split(redis.call('LINDEX', w.key, -1))
            at = tonumber(at)
            if math.floor(at / w.grain) == math.floor(now / w.grain) then
              -- A clock that has stepped back must not take a run with it.
              redis.call('LSET', w.key, -1, string.format('%.0f:%.0f', math.max(at, now), last + n))
              w.used = w.used + n
              return
            end
          end
          redis.call('RPUSH', w.key, string.format('%.0f:%.0f', now, n))
          w.used = w.used + n
        end
        local function earlier(x, y) return x[1] < y[1] end
        -- Puts pairs of instant and permits among those of the list.
        local function insert(w, fresh)
          table.sort(fresh, earlier)
          local total = 0
          for i = 1, #fresh do total = total + fresh[i][2] end
          local from = w.runs and 1 or 0
          local n = w.there and redis.call('LLEN', w.key) or 0
          local keep, later, step = n, {}, 4
          while keep > from do
            local part = redis.call('LRANGE', w.key, math.max(from, keep - step), keep - 1)
            local found = false
            for i = #part, 1, -1 do
              local at, count = part[i], 1
              if w.runs then at, count = split(at) end
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
          local at, count = nil, 0
          if w.runs and keep > 1 then
            keep = keep - 1
            at, count = split(redis.call('LINDEX', w.key, keep))
            at = tonumber(at)
          end
          if keep == 0 and n > 0 then
            redis.call('DEL', w.key)
          elseif keep < n then
            redis.call('LTRIM', w.key, 0, keep - 1)
          end
          local v = {}
          local function push(x)
            v[#v + 1] = x
            if #v == 1000 then
              redis.call('RPUSH', w.key, unpack(v))
              v = {}
            end
          end
          if w.runs then
            for i = 1, #all do
              local t, c = all[i][1], all[i][2]
              if at and math.floor(at / w.grain) == math.floor(t / w.grain) then
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
          if #v > 0 then redis.call('RPUSH', w.key, unpack(v)) end
          w.used, w.there, w.changed, w.touched, w.first = w.used + total, true, true, true, nil
        end
        -- The instant of the x-th oldest permit.
        local function nth(w, x)
          if not w.runs then return tonumber(redis.call('LINDEX', w.key, x - 1)) end
          local i, step = 1, 1
          while true do
            local part = redis.call('LRANGE', w.key, i, i + step - 1)
            for j = 1, #part do
              local at, n = split(part[j])
              x = x - n
              if x <= 0 then return tonumber(at) end
            end
            if #part < step then return nil end
            i, step = i + step, 64
          end
        end
        -- Settles what is due of a window's leases. Returns the pairs to write down, the permits still out on
        -- lease, those of others, the last end, whether this call is older than the caller's lease, and the
        -- call up to which it stands here what the caller has told.
        local function settle(w, s, report)
          local due, leased, others, last, old, told = {}, 0, 0, 0, false, 0
          for holder, lease in pairs(w.leases) do
            local n, e, call = lease[1], lease[2], lease[3]
            local own = holder == me and s >= 0
            -- A note of what was told is over with what it is about.
            local over = not own and e + (n > 0 and \#(graceMicroseconds) or 0) < low
            if own and call <= id then
              told = call
              if call == s then
                for j = 1, #report do
                  if report[j][1] >= w.horizon then due[#due + 1] = report[j] end
                end
              elseif call < s and n > 0 and e >= w.horizon then
                due[#due + 1] = {e, n}
              end
              w.leases[holder], w.changed = nil, true
            elseif over then
              if n > 0 and e >= w.horizon then due[#due + 1] = {e, n} end
              w.leases[holder], w.changed = nil, true
            else
              old = old or own
              leased = leased + n
              if holder ~= me then others = others + n end
              if n > 0 and e > last then last = e end
            end
          end
          return due, leased, others, last, old, told
        end
        -- Where the list ended when its history began: later permits are those that Redis has lost.
        local function beginHistory(w)
          if w.past == history and w.cut then return end
          local tail = w.there and redis.call('LINDEX', w.key, -1)
          gather(w)
          w.past, w.cut, w.changed = history, 0, true
          if tail and w.used > 0 then w.cut = tonumber(string.match(tail, '^%d+')) end
        end
        -- Leaves the head as it has to be, or nothing when there is nothing to keep.
        local function close(w)
          if w.runs and w.changed then
            local parts = {string.format('r:%.0f', w.used)}
            if w.cut then parts[1] = parts[1] .. string.format('@%s:%.0f', w.past, w.cut) end
            for holder, lease in pairs(w.leases) do
              parts[#parts + 1] = string.format('%s=%.0f:%.0f:%.0f', holder, lease[1], lease[2], lease[3])
            end
            if w.used == 0 and #parts == 1 and (history == '' or w.past ~= history) then
              redis.call('DEL', w.key)
              return
            end
            redis.call('LSET', w.key, 0, table.concat(parts, ';'))
          end
          if w.touched then
            redis.call('PEXPIRE', w.key, math.ceil((w.W + \#(keptMicroseconds)) / 1000))
          end
        end
        local function entriesFrom(at, n, width)
          local list = {}
          for i = at, at + width * (n - 1), width do
            local at, permits, first = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
            list[#list + 1] = {math.min(at, now), permits, first}
          end
          return list
        end
        -- Adds to `due` what of `unasked` does not stand here yet. Returns the last instant of it all.
        local function tell(w, unasked, told, due)
          local last = 0
          for y = 1, #unasked do
            local at = unasked[y][1]
            if at >= w.horizon then
              if unasked[y][3] > told then due[#due + 1] = unasked[y] end
              last = math.max(last, at)
            end
          end
          return last
        end
        local all = {}
        local function decide(k, b, at)
          local m, c = tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2])
          local s, g, l = tonumber(ARGV[p + 3]), tonumber(ARGV[p + 4]), tonumber(ARGV[p + 5])
          local j, u, v = tonumber(ARGV[p + 6]), tonumber(ARGV[p + 7]), tonumber(ARGV[p + 8])
          local report, unasked = entriesFrom(p + 9, j, 2), entriesFrom(p + 9 + 2 * j, u, 3)
          local lost = entriesFrom(p + 9 + 2 * j + 3 * u, v, 2)
          local a, x, never, old = m, 0, false, false
          all = {}
          for i = 1, k do
            local w = open(KEYS[q + i - 1], tonumber(ARGV[b + 2 * i - 2]), tonumber(ARGV[b + 2 * i - 1]))
            all[i] = w
            if history ~= '' then beginHistory(w) end
            if w.N > 4096 and w.there then gather(w) end
            local due, leased, others, last, late, told = settle(w, s, report)
            w.leased, w.last, old = leased, last, old or late
            local noted = late and 0 or tell(w, unasked, told, due)
            for y = 1, #lost do
              if lost[y][1] >= w.horizon and lost[y][1] > w.cut then due[#due + 1] = lost[y] end
            end
            if #due > 0 then
              if w.N > 4096 then gather(w) end
              insert(w, due)
            end
            -- Not before it is written down.
            if noted > 0 then
              gather(w)
              w.leases[me], w.changed, w.touched = {0, noted + w.W, id}, true, true
            end
            if others > x then x = others end
            local room = math.floor((w.N - w.used - leased) / c)
            if room < a then a = room end
            if c > w.N then never = true end
          end
          if a < 0 or old then a = 0 end
          if old then g = 0 end
          for i = 1, k do
            local w = all[i]
            local room = w.N - w.used - w.leased - a * c
            if room * 4 <= w.N then
              g = 0
            elseif g > room / (2 * share) then
              g = math.floor(room / (2 * share))
            end
          end
          if g < 2 * c then g = 0 end
          out[at], out[at + 1], out[at + 2] = a, 0, x
          out[at + 3], out[at + 4] = g, g > 0 and now + l or 0
          for i = 1, k do
            local w = all[i]
            if a > 0 then
              if w.N > 4096 then gather(w) end
              spend(w, a * c)
            end
            if g > 0 then
              gather(w)
              w.leases[me], w.changed, w.touched = {g, now + l, id}, true, true
            end
            local used = w.used + w.leased
            local oldest = w.used > 0 and (w.first or nth(w, 1))
            if not never and used + c > w.N then
              local back = used + c - w.N
              local free = w.last
              if back <= w.used then free = nth(w, back) or free end
              if free + w.W + 1 > out[at + 1] then out[at + 1] = free + w.W + 1 end
            end
            out[at + 3 + 2 * i], out[at + 4 + 2 * i] = w.N - used - g, oldest and oldest + w.W + 1 or 0
            close(w)
          end
          if a < m and x > 0 and not never then redis.pcall('PUBLISH', ARGV[9], KEYS[q]) end
        end
        while ARGV[p] do
          local k, at = tonumber(ARGV[p]), #out + 1
          local b = p + 9 + 2 * ARGV[p + 6] + 3 * ARGV[p + 7] + 2 * ARGV[p + 8]
          local fine, problem = pcall(decide, k, b, at)
          if not fine then
            -- Somebody else has written there: that account cannot be decided. Anything else concerns all.
            local text = type(problem) == 'table' and problem.err or tostring(problem)
            local function says(words) return string.find(text, words, 1, true) end
            if not says('WRONGTYPE') and not says('attempt to') then error(problem) end
            for i = 1, #all do pcall(close, all[i]) end
            out[at] = -1
            for i = at + 1, at + 4 + 2 * k do out[i] = 0 end
          end
          p, q = b + 2 * k, q + k
        end
        return out
        """#
}
