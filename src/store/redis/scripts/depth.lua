-- How full the queue is, but for what is in the inbox beyond a thousand entries. ARGV: time, how long after its edge one that is held ahead is held,
-- `1` where there is room for reading, shares of one company for showing and for reading, then for each company of which this replica holds
-- leases: company, for showing, for reading. What is held ahead counts as leased from its edge on. Answers mailboxes, due, leased, since when something
-- has been due that nobody took, the next due time.
local now = clock(ARGV[1])
take_in(now, 1000)
local used = { {}, {} }
for n = 6, #ARGV, 3 do
    used[1][ARGV[n]], used[2][ARGV[n]] = tonumber(ARGV[n + 1]), tonumber(ARGV[n + 2])
end
local oldest
local function look(lane, heads, share)
    local heads = call('ZRANGE', heads, 0, -1, 'WITHSCORES')
    for n = 1, #heads, 2 do
        if (used[lane][heads[n]] or 0) < share then oldest = earlier(oldest, tonumber(heads[n + 1]) % STEP) end
    end
    return heads
end
local due = 0
local showing = look(1, P .. 'heads', tonumber(ARGV[4]))
for n = 1, #showing, 2 do due = due + call('ZCARD', P .. 'ready:' .. showing[n]) end
local reading = look(2, P .. 'reading-heads', ARGV[3] == '1' and tonumber(ARGV[5]) or 0)
for n = 1, #reading, 2 do
    for _, id in ipairs(call('ZRANGE', P .. 'to-read:' .. reading[n], 0, -1)) do
        local place = call('HGET', P .. 'm:' .. id, 'z')
        local ready = place and string.sub(place, 1, 1) == 'r'
        local overdue = place and not ready and tonumber(string.sub(place, 2)) <= now
        if not ready and not overdue then due = due + 1 end
    end
end
local next
for _, set in ipairs({ 'timed', 'edges' }) do
    due = due + call('ZCOUNT', P .. set, '-inf', text(now))
    oldest = earlier(oldest, number(call('ZRANGEBYSCORE', P .. set, '-inf', text(now), 'WITHSCORES', 'LIMIT', 0, 1)[2]))
    next = earlier(next, number(call('ZRANGEBYSCORE', P .. set, '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]))
end
local hold = tonumber(ARGV[2])
local begun = text(now + hold)
local leased = call('ZCARD', P .. 'leases') + call('ZCOUNT', P .. 'ahead', '-inf', begun)
local ahead = number(call('ZRANGEBYSCORE', P .. 'ahead', '(' .. begun, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
next = earlier(next, ahead and ahead - hold)
return { call('HGET', P .. 'meta', 'mailboxes') or '0', due, leased, oldest and text(oldest) or '', next and text(next) or '' }
