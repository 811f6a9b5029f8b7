-- Holds a lease for reading. ARGV: time, mailbox, generation, share of one company for reading, then for each company of which this
-- replica holds leases for reading: company, how many. Answers 1; 0 where somebody has waited longer; nothing where the lease is lost.
local now, id = clock(ARGV[1]), ARGV[2]
if not holds(id, ARGV[3], now) then return false end
local key = P .. 'm:' .. id
if call('HGET', key, 'f') == '2' then return 1 end
local used, full = {}, 0
for n = 5, #ARGV, 2 do
    used[ARGV[n]] = tonumber(ARGV[n + 1])
    if used[ARGV[n]] >= tonumber(ARGV[4]) then full = full + 1 end
end
for _, company in ipairs(call('ZRANGE', P .. 'reading-heads', 0, full)) do
    if (used[company] or 0) < tonumber(ARGV[4]) then return 0 end
end
call('HDEL', key, 'ru', 'rs')
call('HSET', key, 'f', 2)
return 1
