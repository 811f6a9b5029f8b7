-- Makes mailboxes due. ARGV: time, how many announcements, their fingerprints of eight bytes and their entries of the inbox, each with a line feed
-- before it, one after the other, and then their mailboxes; for each other mark: mailbox, from when on (empty: now), urgency, line,
-- line without the item. Answers a letter for each: marked, duplicate, coalesced, unknown.
--
-- Announcements are by far the most, and what is done here for each of them is what an acknowledgement costs. So next to nothing is done
-- for a single one: they are known, new and stored together, and go to their mailboxes when somebody looks what is due.
local now = clock(ARGV[1])
local announced = tonumber(ARGV[2])
local answers = {}

-- With so many parcels in the inbox (of 5 to 60 KB where they come fast), who adds to it takes out more than that.
local FULL = 4000

-- Puts the entries of a call into the inbox, as one parcel.
local function post(entries)
    local parcels = call('RPUSH', P .. 'inbox', text(now) .. entries)
    -- Whoever was told of the first of them finds the others too.
    if parcels == 1 then wake() end
    if parcels > FULL then take_in(now, 2 * announced) end
end

-- Takes out of the entries those that are not new; `is_new` says which are.
local function only(entries, is_new)
    local new, n = {}, 0
    for entry in string.gmatch(entries, '\n[^\n]+') do
        n = n + 1
        if is_new(n) then new[#new + 1] = entry end
    end
    return table.concat(new)
end

if announced > 0 then
    local keys, prints = {}, {}
    local mailbox, all = P .. 'm:', ARGV[3]
    for n = 1, announced do
        keys[n] = mailbox .. ARGV[4 + n]
        prints[n] = string.sub(all, 8 * n - 7, 8 * n)
    end
    -- A version is known again for four to eight minutes.
    local window = math.floor(now / 240000000)
    local seen = P .. 'seen:' .. window
    local early = call('SMISMEMBER', P .. 'seen:' .. window - 1, unpack(prints))
    local late = call('SMISMEMBER', seen, unpack(prints))
    local all_new = call('EXISTS', unpack(keys)) == announced
    for n = 1, announced do
        if early[n] == 1 or late[n] == 1 then all_new = false end
    end
    local new = {}
    local all_added = all_new and call('SADD', seen, unpack(prints)) == announced
    if all_added then
        answers[1] = string.rep('m', announced)
        post(ARGV[4])
    else
        local here = {}
        for n = 1, announced do
            if not all_new and call('EXISTS', keys[n]) == 0 then
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
            post(only(ARGV[4], function(n) return answers[n] == 'm' end))
        end
    end
    if all_added or new[1] then call('EXPIRE', seen, 600) end
end

for n = 5 + announced, #ARGV, 5 do
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
