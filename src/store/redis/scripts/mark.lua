-- Makes mailboxes due. ARGV: time, how many announcements, their fingerprints of eight bytes, the name of their parcel and what is in it (empty
-- where it was put there already, for a minute: what comes to a script is hashed byte by byte, and a parcel may be long), how many of their
-- mailboxes are to be looked for, and for each the place of its announcement, and its number; then for each other mark: mailbox, from when on
-- (empty: now), urgency, line, line without the item. Answers a letter for each: marked, duplicate, coalesced, unknown.
--
-- Announcements are by far the most, and what is done here for each of them is what an acknowledgement costs. So next to nothing is done
-- for a single one: they are known, new and stored together, and go to their mailboxes when somebody looks what is due.
local now = clock(ARGV[1])
local announced = tonumber(ARGV[2])
local answers = {}

-- With so many entries in the inbox (25 to 40 MB), who adds to it takes out more than that.
local FULL = 100000

-- How long fingerprints are put into the same set, and how long after that they are looked for, in microseconds: a version is known again for half a
-- minute to two and a half. What is announced twice is so within seconds, or again after ten, when an answer was lost; later, it is told by what
-- was read.
local WINDOW, AFTER = 120000000, 30000000

local parcel = P .. 'parcel:' .. ARGV[4]

-- Puts the parcel, which has `count` entries, into the inbox.
local function post(count)
    local parts = call('RPUSH', P .. 'inbox', text(now), count, ARGV[4])
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

-- Whether anything of a list of numbers is 1.
local function any(list)
    for n = 1, #list do
        if list[n] == 1 then return true end
    end
    return false
end

local looked_for = tonumber(ARGV[6])

-- Places of announcements whose mailboxes are not there.
local function missing()
    local keys, places = {}, {}
    for n = 1, looked_for do keys[n] = P .. 'm:' .. ARGV[6 + 2 * n] end
    if looked_for == 0 or call('EXISTS', unpack(keys)) == looked_for then return places end
    for n = 1, looked_for do
        if call('EXISTS', keys[n]) == 0 then places[tonumber(ARGV[5 + 2 * n])] = true end
    end
    return places
end

if announced > 0 then
    if ARGV[5] ~= '' then
        call('SET', parcel, ARGV[5])
    -- Not refused by a Redis that is full, and nothing that a script calls after its first write is: so what is kept here gets into the inbox.
    elseif call('PERSIST', parcel) == 0 then
        return redis.error_reply('NOVALUE the parcel is not there')
    end
    local prints = { struct.unpack(string.rep('c8', announced), ARGV[3]) }
    -- Last comes where the next of them would begin.
    prints[announced + 1] = nil
    local window = math.floor(now / WINDOW)
    local seen, before = P .. 'seen:' .. window, P .. 'seen:' .. window - 1
    local is_first = call('EXISTS', seen) == 0
    local reaches_back = now - window * WINDOW < AFTER and call('EXISTS', before) == 1
    local early = reaches_back and call('SMISMEMBER', before, unpack(prints)) or {}
    local late = is_first and {} or call('SMISMEMBER', seen, unpack(prints))
    local unknown = missing()
    -- One that is twice in the call is added once.
    if not next(unknown) and not any(early) and not any(late) and call('SADD', seen, unpack(prints)) == announced then
        answers[1] = string.rep('m', announced)
        post(announced)
    else
        local new, here = {}, {}
        for n = 1, announced do
            if unknown[n] then
                answers[n] = 'u'
            elseif early[n] == 1 or late[n] == 1 or here[prints[n]] then
                answers[n] = 'd'
            else
                answers[n] = 'm'
                here[prints[n]] = true
                new[#new + 1] = prints[n]
            end
        end
        if new[1] then
            call('SADD', seen, unpack(new))
            call('SET', parcel, only_marked(call('GET', parcel)))
            post(#new)
        else
            call('DEL', parcel)
        end
    end
    if is_first then
        call('EXPIRE', seen, 600)
        -- Redis itself would let everybody wait while it frees a large one that has expired.
        call('UNLINK', P .. 'seen:' .. window - 2)
    end
end

for n = 7 + 2 * looked_for, #ARGV, 5 do
    local id = ARGV[n]
    local m = waiting_of(id)
    local answer = 'u'
    if m[1] then
        local at = ARGV[n + 1] == '' and now or tonumber(ARGV[n + 1])
        answer = gather(id, m, now, at, tonumber(ARGV[n + 2]), ARGV[n + 3], ARGV[n + 4]) and 'm' or 'c'
    end
    answers[#answers + 1] = answer
end
return table.concat(answers)
