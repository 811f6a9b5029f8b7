-- What is in the inbox: of each parcel when it came, and its entries. ARGV: from which parcel on, how many.
local parts = call('LRANGE', P .. 'inbox', 2 * ARGV[1], 2 * (ARGV[1] + ARGV[2]) - 1)
for n = 2, #parts, 2 do parts[n] = call('GET', P .. 'parcel:' .. parts[n]) or '' end
return parts
