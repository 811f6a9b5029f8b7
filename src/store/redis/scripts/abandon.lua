-- Hands back leases that were given up, as far as they stand. ARGV: time, then mailbox and generation of each. Answers how many.
local now, count = clock(ARGV[1]), 0
for n = 2, #ARGV, 2 do
    if holds(ARGV[n], ARGV[n + 1], now) then
        take_back(ARGV[n], now)
        count = count + 1
    end
end
return count
