-- What all scripts share. KEYS[1] is the prefix of all keys, `{narvaro}:`; its hash tag keeps them in one slot, so the keys that a
-- script makes from it are where the script runs. Times are in microseconds since 1970 and fit a double exactly; so
-- do scores, in which the urgency stands above the time.
local P = KEYS[1]
local call = redis.call

-- Above every time until 2049; twice it, plus a time, is below 2^53.
local STEP = 2500000000000000

-- How long announcements are written into the same log, in microseconds. One is known again as long as its log is this or the one before, so for
-- a minute at least: what is announced twice is so within seconds, or again after ten, when an answer was lost; later, it is told by what was read.
local WINDOW = 60000000

-- The store's time: that of Redis, or what a test says it is.
local function clock(given)
    if given ~= '' then return tonumber(given) end
    local t = call('TIME')
    return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

local function number(value)
    return value and tonumber(value) or nil
end

local function text(value)
    return string.format('%.0f', value)
end

local function earlier(a, b)
    if a and b then return math.min(a, b) end
    return a or b
end

local function score(urgency, at)
    return urgency * STEP + at
end

local woken, silent = false, false

-- Tells all replicas, once per script, that something is due that was not. Who is about to take it himself is `silent` until he has.
local function wake()
    if not woken then
        woken = true
        if not silent then call('PUBLISH', P .. 'due', '') end
    end
end

-- Keeps the order of companies right after the first of a lane may have changed.
local function refresh(heads, lane, company)
    local first = call('ZRANGE', lane .. company, 0, 0, 'WITHSCORES')
    if first[2] then
        call('ZADD', heads, first[2], company)
    else
        call('ZREM', heads, company)
    end
end

-- Takes a mailbox out of where it waits.
local function leave_place(id, company, place, reading)
    if place then
        local kind = string.sub(place, 1, 1)
        if kind == 'r' then
            call('ZREM', P .. 'ready:' .. company, id)
            refresh(P .. 'heads', P .. 'ready:', company)
        else
            call('ZREM', P .. (kind == 'e' and 'edges' or 'timed'), id)
        end
    end
    if reading then
        call('ZREM', P .. 'to-read:' .. company, id)
        refresh(P .. 'reading-heads', P .. 'to-read:', company)
    end
end

-- Adds to a lane, and keeps the order of companies right.
local function enter_lane(heads, lane, company, value, id)
    call('ZADD', lane .. company, value, id)
    local head = call('ZSCORE', heads, company)
    if not head or tonumber(head) > value then
        call('ZADD', heads, text(value), company)
    end
    wake()
end

local edges_told = false

-- Whether something is due later, and before all others, that was not before.
local comes_first = false

-- Adds to what is due later: to `timed`, or to `edges`, of which some are given out ahead of their time.
local function enter_later(kind, at, id)
    local set = P .. (kind == 'e' and 'edges' or 'timed')
    call('ZADD', set, text(at), id)
    local first = call('ZRANGE', set, 0, 0)[1]
    if first ~= id then return end
    comes_first = true
    wake()
    if kind == 'e' and not edges_told then
        edges_told = true
        call('PUBLISH', P .. 'edges', '')
    end
end

-- Puts a mailbox where its due times say.
--   c company | d u own due time and urgency | pd pu of what has gathered | t end of the lease | z place | zq place in the lane for
--   reading | ru rs urgency of the reading that was put off, and since when | a the edge for which it is leased ahead
local function place(id, now)
    local key = P .. 'm:' .. id
    local m = call('HMGET', key, 'c', 'd', 'u', 'pd', 'pu', 't', 'z', 'zq', 'ru', 'rs')
    local company = m[1]
    if not company then return end
    local want, want_reading
    if not m[6] then
        local due, urgency = number(m[2]), number(m[3]) or 0
        local gathered = number(m[4])
        local gathered_urgency = gathered and (number(m[5]) or urgency)
        local since, ready
        if due and due <= now then since, ready = due, urgency end
        if gathered and gathered <= now then
            since = earlier(since, gathered)
            ready = ready and math.min(ready, gathered_urgency) or gathered_urgency
        end
        if ready then
            want = 'r' .. text(score(ready, since))
        else
            local at = earlier(due, gathered)
            want = at and (due == at and urgency == 0 and 'e' or 't') .. text(at) or false
        end
        if m[9] then want_reading = text(score(tonumber(m[9]), tonumber(m[10]))) end
    end
    want, want_reading = want or false, want_reading or false
    if want ~= m[7] then
        leave_place(id, company, m[7], false)
        if want then
            local kind, value = string.sub(want, 1, 1), tonumber(string.sub(want, 2))
            if kind == 'r' then
                enter_lane(P .. 'heads', P .. 'ready:', company, value, id)
            else
                enter_later(kind, value, id)
            end
            call('HSET', key, 'z', want)
        else
            call('HDEL', key, 'z')
        end
    end
    if want_reading ~= m[8] then
        leave_place(id, company, false, m[8])
        if want_reading then
            enter_lane(P .. 'reading-heads', P .. 'to-read:', company, tonumber(want_reading), id)
            call('HSET', key, 'zq', want_reading)
        else
            call('HDEL', key, 'zq')
        end
    end
end

-- Whether a lease stands.
local function holds(id, generation, now)
    local m = call('HMGET', P .. 'm:' .. id, 'g', 't')
    return m[1] == generation and m[2] and tonumber(m[2]) > now
end

-- Ends a lease; what it had gathered is done with.
local function unhold(id)
    local key = P .. 'm:' .. id
    local ahead = call('HDEL', key, 'a') == 1
    call('HDEL', key, 't', 'w', 'f', 'hs', 'hu')
    call('DEL', P .. 'held:' .. id)
    call('ZREM', P .. (ahead and 'ahead' or 'leases'), id)
end

-- A lease that was given ahead is one like any other from here on, until `untl`.
local function is_usual_now(id, untl)
    call('HDEL', P .. 'm:' .. id, 'a')
    call('ZREM', P .. 'ahead', id)
    call('ZADD', P .. 'leases', untl, id)
end

-- Takes a lease back: what it had gathered is due again at once. One that was given ahead, and had gathered nothing, was given for
-- nothing but its edge, and is due then.
local function take_back(id, now)
    local key = P .. 'm:' .. id
    local m = call('HMGET', key, 't', 'hs', 'hu', 'ps', 'pu', 'a')
    if not m[1] then
        call('ZREM', P .. 'leases', id)
        call('ZREM', P .. 'ahead', id)
        return
    end
    if m[6] and not m[2] then
        unhold(id)
        place(id, now)
        return
    end
    local held, waiting = call('GET', P .. 'held:' .. id), call('GET', P .. 'waiting:' .. id)
    if held then
        -- Both begin and end with a line feed.
        call('SET', P .. 'waiting:' .. id, waiting and held .. string.sub(waiting, 2) or held)
    end
    unhold(id)
    call('HSET', key, 'pd', text(now))
    local since, urgency = earlier(number(m[2]), number(m[4])), earlier(number(m[3]), number(m[5]))
    if since then call('HSET', key, 'ps', text(since)) end
    if urgency then call('HSET', key, 'pu', urgency) end
    place(id, now)
end

-- More lines than this, and single items are no longer kept: the whole is read.
local MOST_LINES = 24

-- What `gather` has to know of a mailbox; the first is nothing where there is none.
local function waiting_of(id)
    return call('HMGET', P .. 'm:' .. id, 'c', 'pd', 'pu', 'ps', 'a')
end

local told = {}

-- Asks whoever holds a mailbox ahead to hand it back, once. The message may be lost, the set is not.
local function recall(id)
    local m = call('HMGET', P .. 'm:' .. id, 'w', 'g', 't')
    if not (m[1] and m[3]) then
        -- Nobody holds it.
        call('HDEL', P .. 'm:' .. id, 'a')
        return
    end
    is_usual_now(id, m[3])
    local recalled = P .. 'recalled:' .. m[1]
    call('SADD', recalled, id .. ' ' .. m[2])
    -- Scripts run as a whole: whoever is told with the first of them reads all of them.
    if not told[m[1]] then
        told[m[1]] = true
        call('EXPIRE', recalled, 600)
        call('PUBLISH', P .. 'recall:' .. m[1], '')
    end
end

-- Adds a mark to what waits. `line` says all of it, `short` all but the item. Whether that is anything new.
local function gather(id, m, now, at, urgency, line, short)
    local due, before = number(m[2]), number(m[3]) or urgency
    local key = P .. 'waiting:' .. id
    local waiting = call('GET', key)
    local known = false
    if waiting then
        known = string.find(waiting, '\n' .. line .. '\n', 1, true)
        if not known and line ~= short then
            known = string.find(waiting, '\n' .. short .. '\n', 1, true)
            if not known and select(2, string.gsub(waiting, '\n', '')) > MOST_LINES then line = short end
        end
        if not known then call('APPEND', key, line .. '\n') end
    else
        call('SET', key, '\n' .. line .. '\n')
    end
    if due and due <= at and before <= urgency then return not known end
    call('HSET', P .. 'm:' .. id, 'pd', text(earlier(due, at)), 'ps', text(earlier(number(m[4]), at)),
        'pu', math.min(before, urgency))
    if m[5] and at < tonumber(m[5]) then recall(id) end
    place(id, now)
    return true
end

-- Takes parcels out of the inbox until at least `most` entries have gone to their mailboxes. In the list stands when a parcel came, how many entries
-- it has, and its name; in the parcel entries with a line feed before each: a mailbox, its urgency, and the line, which is the line that says
-- all but the item up to where the item comes. A parcel is taken as a whole, so it may be some more. Whether any may be left.
local function take_in(now, most)
    local taken, more = 0, true
    while taken < most do
        local parts = call('LPOP', P .. 'inbox', 3)
        if not parts then
            more = false
            break
        end
        local at, parcel = math.min(now, tonumber(parts[1])), P .. 'parcel:' .. parts[3]
        for id, urgency, line in string.gmatch(call('GET', parcel) or '', '\n(%d+) (%d) ([^\n]+)') do
            local m = waiting_of(id)
            -- Nothing is to be done for one that is gone meanwhile.
            if m[1] then
                local item = string.find(line, ',"i":', 1, true)
                gather(id, m, now, at, tonumber(urgency), line, item and string.sub(line, 1, item - 1) .. '}' or line)
            end
        end
        taken = taken + tonumber(parts[2])
        call('DEL', parcel)
    end
    if taken > 0 then call('HINCRBY', P .. 'meta', 'inbox', -taken) end
    return more
end

local revisions = {}
local function revision_of(company)
    revisions[company] = revisions[company] or call('HGET', P .. 'company:' .. company, 'revision') or '0'
    return revisions[company]
end

-- Gives a mailbox out until `untl`; the lane says what for, `ahead` for which edge where it is given before its time. Adds to the answer:
-- mailbox, company, its revision, generation, end of the lease, what had gathered in lines, since when, lane, document, announced write.
local function give(answer, id, company, lane, replica, now, untl, ahead)
    local key = P .. 'm:' .. id
    local m = call('HMGET', key, 'g', 'z', 'zq', 'ps', 'pu', 'pd')
    leave_place(id, company, m[2], m[3])
    local generation = text(math.max((number(m[1]) or 0) + 1, now))
    call('HDEL', key, 'z', 'zq', 'pd', 'ps', 'pu')
    if lane == 2 then call('HDEL', key, 'ru', 'rs') end
    local fields = { 'g', generation, 't', untl, 'w', replica, 'f', lane }
    if m[6] then
        for _, value in ipairs({ 'hs', m[4] or m[6], 'hu', m[5] or 0 }) do fields[#fields + 1] = value end
    end
    if ahead then
        fields[#fields + 1] = 'a'
        fields[#fields + 1] = ahead
    end
    call('HSET', key, unpack(fields))
    call('ZADD', P .. (ahead and 'ahead' or 'leases'), untl, id)
    local gathered = m[6] and call('GET', P .. 'waiting:' .. id)
    if gathered then call('RENAME', P .. 'waiting:' .. id, P .. 'held:' .. id) end
    local documents = call('MGET', P .. 'state:' .. id, P .. 'intent:' .. id)
    for _, value in ipairs({ id, company, revision_of(company), generation, untl, gathered or '', m[4] or '', lane,
        documents[1] or '', documents[2] }) do
        answer[#answer + 1] = value
    end
end

-- Writes an entry of the audit trail; `kept` of them stay.
local function note(entry, kept)
    if entry == '' then return end
    local n = call('HINCRBY', P .. 'meta', 'trail', 1)
    call('LPUSH', P .. 'trail', text(n) .. ' ' .. entry)
    call('LTRIM', P .. 'trail', 0, tonumber(kept) - 1)
end

-- Counts a change of a company and tells all replicas. The number is greater than that of every change before, of any company.
local function revise(company)
    local revision = call('HINCRBY', P .. 'meta', 'revision', 1)
    if company then call('HSET', P .. 'company:' .. company, 'revision', revision) end
    call('PUBLISH', P .. 'companies', revision)
    return revision
end

-- Makes all users of a company due: one mark for all of them, one more for those who were taken out.
local function mark_users(company, now, urgency, line, retired_urgency, retired_line)
    local users = call('HGETALL', P .. 'users:' .. company)
    for n = 2, #users, 2 do
        local id, retired = string.match(users[n], '^(%d+)(r?)$')
        gather(id, waiting_of(id), now, now, tonumber(urgency), line, line)
        if retired == 'r' then gather(id, waiting_of(id), now, now, tonumber(retired_urgency), retired_line, retired_line) end
    end
end
