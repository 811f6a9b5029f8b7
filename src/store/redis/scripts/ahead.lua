-- Takes edges before they are due. ARGV: time, most, how far ahead, for how long after its edge each is held, replica, how many to pass over,
-- then the companies of which no more are taken. Answers: time, when the first edge comes that lies further ahead (empty: there is none),
-- how many were passed over in all, `1` where there may be more, then for each lease its edge and the ten values that `give` lists.
local now, most = clock(ARGV[1]), tonumber(ARGV[2])
-- What was announced may be about one of them.
take_in(now, 256)
local horizon, hold, replica, passed = now + tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local full = {}
for n = 7, #ARGV do full[ARGV[n]] = true end

local look = 2 * most
local found = call('ZRANGEBYSCORE', P .. 'edges', '(' .. text(now), text(horizon), 'WITHSCORES', 'LIMIT', passed, look)
local answer = { text(now), '', '', #found == 2 * look and '1' or '' }
local taken = 0
for n = 1, #found, 2 do
    if taken == most then
        answer[4] = '1'
        break
    end
    local id, due = found[n], tonumber(found[n + 1])
    local m = call('HMGET', P .. 'm:' .. id, 'c', 'zq')
    if not m[1] or m[2] or full[m[1]] then
        -- One that waits for room to read is given out for that as soon as there is some.
        passed = passed + 1
    else
        give(answer, id, m[1], 1, replica, now, text(due + hold), text(due))
        table.insert(answer, #answer - 9, text(due))
        taken = taken + 1
    end
end
answer[3] = text(passed)
local next = call('ZRANGEBYSCORE', P .. 'edges', '(' .. text(horizon), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
if next then answer[2] = text(tonumber(next)) end
return answer
