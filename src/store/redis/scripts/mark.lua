-- Makes mailboxes due. ARGV: time; how far the caller has read the logs of announcements (the window; of its log how many bytes, and the last
-- eight; of the one before too), and how many bytes more are compared here; how many announcements, their fingerprints of eight bytes, the name of their parcel and what is in it
-- (empty where it was put there already, for a minute: what comes to a script is hashed byte by byte, and a parcel may be long), how many of their
-- mailboxes are to be looked for, and for each the place of its announcement, and its number; then for each other mark: mailbox, from when on
-- (empty: now), urgency, line, line without the item.
--
-- Answers a letter for each (marked, duplicate, coalesced, unknown), and what others have announced since. Where the caller has not read enough to
-- say what is new, nothing is done: then it answers nothing, the window, whether what comes goes on where the caller is (0: the caller begins
-- anew), and what was added to the log before and to this one.
--
-- Announcements are by far the most, and what is done here for each of them is what an acknowledgement costs. So next to nothing is done
-- for a single one: the caller says which are new, they are written down and stored together, and go to their mailboxes when somebody looks
-- what is due.
local now = clock(ARGV[1])
local announced = tonumber(ARGV[8])
local answers = {}

-- With so many entries in the inbox (25 to 40 MB), who adds to it takes out more than that.
local FULL = 100000

-- How long a log is kept, in seconds: as long as anybody looks into it, and twice that, should the clock go back.
local KEPT = 4 * WINDOW / 1000000

local parcel = P .. 'parcel:' .. ARGV[10]

-- Puts the parcel, which has `count` entries, into the inbox.
local function post(count)
    local parts = call('RPUSH', P .. 'inbox', text(now), count, ARGV[10])
    -- Whoever was told of the first of them finds the others too.
    if parts == 3 then wake() end
    if call('HINCRBY', P .. 'meta', 'inbox', count) > FULL then take_in(now, 2 * count) end
end

-- Of the entries those whose answer is that they are marked.
local function only_marked(entries)
    local new, n = {}, 0
    for entry in string.gmatch(entries, '\n[^\n]+') do
        n = n + 1
        if answers[n] == 'm' then new[#new + 1] = entry end
    end
    return table.concat(new)
end

-- Fingerprints, one by one: those from a byte on, as many as fit onto the stack.
local MOST = 4000
local function prints_of(bytes, from)
    local count = math.min((#bytes - from + 1) / 8, MOST)
    local prints = { struct.unpack(string.rep('c8', count), bytes, from) }
    -- Last comes where the next of them would begin.
    prints[count + 1] = nil
    return prints
end

-- Places of those of `prints` that are among `others`.
local function doubles(prints, others)
    local place_of, places = {}, {}
    for n = 1, #prints do place_of[prints[n]] = n end
    for from = 1, #others, 8 * MOST do
        local part = prints_of(others, from)
        for n = 1, #part do
            local place = place_of[part[n]]
            if place then places[place] = true end
        end
    end
    return places
end

-- What was added to a log after its first `bytes`, the last of which are `last`; nothing where it is another log (Redis has lost some of it).
local function added(log, bytes, last)
    if bytes == 0 then return call('GETRANGE', log, 0, -1) end
    local tail = call('GETRANGE', log, bytes - 8, -1)
    if string.sub(tail, 1, 8) == last then return string.sub(tail, 9) end
end

local looked_for = tonumber(ARGV[12])

-- Places of announcements whose mailboxes are not there.
local function missing()
    local keys, places = {}, {}
    for n = 1, looked_for do keys[n] = P .. 'm:' .. ARGV[12 + 2 * n] end
    if looked_for == 0 or call('EXISTS', unpack(keys)) == looked_for then return places end
    for n = 1, looked_for do
        if call('EXISTS', keys[n]) == 0 then places[tonumber(ARGV[11 + 2 * n])] = true end
    end
    return places
end

local window = math.floor(now / WINDOW)
local log, log_before = P .. 'announced:' .. window, P .. 'announced:' .. window - 1

local behind = window - tonumber(ARGV[2])
local bytes, last = tonumber(ARGV[3]), ARGV[4]
-- What others have announced since.
local before, here = '', nil
if behind == 0 then
    here = added(log, bytes, last)
    -- Of a log of which nothing was read it can not be told whether it is the same.
    if bytes == 0 and not added(log_before, tonumber(ARGV[5]), ARGV[6]) then here = nil end
elseif behind == 1 then
    before = added(log_before, bytes, last)
    here = before and call('GETRANGE', log, 0, -1)
end
local follows = here and 1 or 0
if not here then before, here = call('GETRANGE', log_before, 0, -1), call('GETRANGE', log, 0, -1) end
if follows == 0 or behind > 0 or #here > tonumber(ARGV[7]) then
    call('DEL', parcel)
    return { false, window, follows, before, here }
end

if announced > 0 then
    if ARGV[11] ~= '' then
        call('SET', parcel, ARGV[11])
    -- Not refused by a Redis that is full, and nothing that a script calls after its first write is: so what is kept here gets into the inbox.
    elseif call('PERSIST', parcel) == 0 then
        return redis.error_reply('NOVALUE the parcel is not there')
    end
    local known, unknown = {}, missing()
    if here ~= '' then known = doubles(prints_of(ARGV[9], 1), here) end
    local new, count = ARGV[9], announced
    if next(known) or next(unknown) then
        local prints, list = prints_of(ARGV[9], 1), {}
        for n = 1, announced do
            answers[n] = unknown[n] and 'u' or known[n] and 'd' or 'm'
            if answers[n] == 'm' then list[#list + 1] = prints[n] end
        end
        new, count = table.concat(list), #list
    else
        answers[1] = string.rep('m', announced)
    end
    if count == 0 then
        -- It is in no inbox: a call is run once, or the one before has done nothing.
        call('DEL', parcel)
    else
        if count < announced then call('SET', parcel, only_marked(call('GET', parcel))) end
        -- Known as announced only once it is stored: should anything fail between the two, it is taken once more, and not lost.
        post(count)
        if call('APPEND', log, new) == #new then call('EXPIRE', log, KEPT) end
    end
else
    -- A server that must not write any more can not vouch for what was announced before: it is asked to.
    call('EXPIRE', log, KEPT)
end

for n = 13 + 2 * looked_for, #ARGV, 5 do
    local id = ARGV[n]
    local m = waiting_of(id)
    local answer = 'u'
    if m[1] then
        local at = ARGV[n + 1] == '' and now or tonumber(ARGV[n + 1])
        answer = gather(id, m, now, at, tonumber(ARGV[n + 2]), ARGV[n + 3], ARGV[n + 4]) and 'm' or 'c'
    end
    answers[#answers + 1] = answer
end
return { table.concat(answers), here }
