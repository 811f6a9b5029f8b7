-- Hands back what a replica holds, but for these. ARGV: time, replica, where leases stand (`leases`, or `ahead`), then mailbox and generation of each
-- lease that it knows of. Answers how many.
local now, replica = clock(ARGV[1]), ARGV[2]
local known = {}
for n = 4, #ARGV, 2 do known[ARGV[n]] = ARGV[n + 1] end
local count = 0
for _, id in ipairs(call('ZRANGE', P .. ARGV[3], 0, -1)) do
    local m = call('HMGET', P .. 'm:' .. id, 'w', 'g')
    if m[1] == replica and known[id] ~= m[2] then
        take_back(id, now)
        count = count + 1
    end
end
return count
