-- Ends a turn. ARGV: time, mailbox, generation, document, due time (empty: none), urgency, urgency of the reading that was put off
-- (empty: none). Answers 1; nothing where the lease is lost.
local now, id = clock(ARGV[1]), ARGV[2]
if not holds(id, ARGV[3], now) then return false end
local key = P .. 'm:' .. id
call('SET', P .. 'state:' .. id, ARGV[4])
call('DEL', P .. 'intent:' .. id)
unhold(id)
call('HSET', key, 'u', ARGV[6])
if ARGV[5] == '' then call('HDEL', key, 'd') else call('HSET', key, 'd', ARGV[5]) end
if ARGV[7] == '' then
    call('HDEL', key, 'ru', 'rs')
else
    -- Who was handed out for a mark meanwhile keeps the place in the lane.
    call('HSET', key, 'ru', ARGV[7])
    call('HSETNX', key, 'rs', text(now))
end
place(id, now)
return 1
