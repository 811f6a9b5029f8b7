-- Spends a ticket. ARGV: time, ticket, seconds for which it is remembered. Answers 1; nothing where it was spent before.
local now = clock(ARGV[1])
call('ZREMRANGEBYSCORE', P .. 'tickets', '-inf', text(now))
return call('ZADD', P .. 'tickets', 'NX', text(now + tonumber(ARGV[3]) * 1000000), ARGV[2]) == 1 and 1
