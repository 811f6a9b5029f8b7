-- Holds on to a lease. ARGV: time, mailbox, generation, length. Answers until when; nothing where it is lost.
local now, id = clock(ARGV[1]), ARGV[2]
if not holds(id, ARGV[3], now) then return false end
local untl = text(now + tonumber(ARGV[4]))
call('HSET', P .. 'm:' .. id, 't', untl)
call('ZADD', P .. 'leases', untl, id)
return untl
