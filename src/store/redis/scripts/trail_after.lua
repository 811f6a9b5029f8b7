-- Entries of the trail, the newest first, of those with higher numbers the lowest. ARGV: number, how many.
local key, after, most = P .. 'trail', tonumber(ARGV[1]), tonumber(ARGV[2])
-- How many entries, from the oldest on, have no higher number: numbers grow towards the newest.
local low, high = 0, call('LLEN', key)
while low < high do
    local middle = math.floor((low + high) / 2)
    local entry = call('LINDEX', key, -1 - middle)
    if (number(string.match(entry, '^%d+')) or 0) > after then high = middle else low = middle + 1 end
end
return call('LRANGE', key, -low - most, -low - 1)
