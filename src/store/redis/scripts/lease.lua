-- Takes due mailboxes. ARGV: time, most, length of a lease, replica, how many more may read, shares of one company for showing and for
-- reading, then for each company of which this replica holds leases: company, for showing, for reading. Answers: time, when there is
-- something next (empty: nothing is known), how many leases had run out, then for each lease the ten values that `give` lists.
local now = clock(ARGV[1])
local most, hold, replica = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local reading_room = tonumber(ARGV[5])
local shares = { tonumber(ARGV[6]), tonumber(ARGV[7]) }
local HEADS = { P .. 'heads', P .. 'reading-heads' }
local LANES = { P .. 'ready:', P .. 'to-read:' }
local used = { {}, {} }
local full = { 0, 0 }
local function count(lane, company, by)
    local before = used[lane][company] or 0
    used[lane][company] = before + by
    if before < shares[lane] and before + by >= shares[lane] then full[lane] = full[lane] + 1 end
end
for n = 8, #ARGV, 3 do
    count(1, ARGV[n], tonumber(ARGV[n + 1]))
    count(2, ARGV[n], tonumber(ARGV[n + 2]))
end

-- The first company of a lane that has room.
local function head(lane)
    if lane == 2 and reading_room <= 0 then return nil end
    local heads = call('ZRANGE', HEADS[lane], 0, full[lane], 'WITHSCORES')
    for n = 1, #heads, 2 do
        if (used[lane][heads[n]] or 0) < shares[lane] then return heads[n], tonumber(heads[n + 1]) end
    end
end

-- Others are woken in the end, if anything is left for them.
silent = true
local more = take_in(now, 256)
local expired = 0
for _, set in ipairs({ 'leases', 'ahead' }) do
    for _, id in ipairs(call('ZRANGEBYSCORE', P .. set, '-inf', text(now), 'LIMIT', 0, 100)) do
        take_back(id, now)
        expired = expired + 1
    end
end
for _, set in ipairs({ 'edges', 'timed' }) do
    for _, id in ipairs(call('ZRANGEBYSCORE', P .. set, '-inf', text(now), 'LIMIT', 0, math.max(100, 4 * most))) do
        place(id, now)
    end
end

local answer = { text(now), '', expired }
local untl = text(now + hold)
local taken = 0
local companies, scores = {}, {}
for lane = 1, 2 do companies[lane], scores[lane] = head(lane) end
while taken < most and (companies[1] or companies[2]) do
    local lane = 1
    if not companies[1] or (companies[2] and scores[2] < scores[1]) then lane = 2 end
    local company = companies[lane]
    local id = call('ZRANGE', LANES[lane] .. company, 0, 0)[1]
    give(answer, id, company, lane, replica, now, untl)
    taken = taken + 1
    count(lane, company, 1)
    if lane == 2 then reading_room = reading_room - 1 end
    -- A mailbox may have waited in both lanes.
    for each = 1, 2 do
        if each == lane or companies[each] == company then companies[each], scores[each] = head(each) end
    end
end

if more or companies[1] or companies[2] then
    answer[2] = text(now)
else
    local next
    for _, set in ipairs({ 'timed', 'edges', 'leases', 'ahead' }) do
        next = earlier(next, number(call('ZRANGE', P .. set, 0, 0, 'WITHSCORES')[2]))
    end
    if next then answer[2] = text(next) end
end
if woken and (more or comes_first or call('EXISTS', HEADS[1], HEADS[2]) > 0) then call('PUBLISH', P .. 'due', '') end
return answer
