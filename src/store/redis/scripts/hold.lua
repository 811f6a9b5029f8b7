-- Holds on to a lease. ARGV: time, mailbox, generation, length. Answers until when; nothing where it is lost.
local now, id = clock(ARGV[1]), ARGV[2]
if not holds(id, ARGV[3], now) then return false end
local untl = text(now + tonumber(ARGV[4]))
call('HSET', P .. 'm:' .. id, 't', untl)
if call('HEXISTS', P .. 'm:' .. id, 'a') == 1 then
    is_usual_now(id, untl)
else
    call('ZADD', P .. 'leases', untl, id)
end
return untl
