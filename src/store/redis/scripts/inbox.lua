-- What is in the inbox: of each parcel when it came, and its entries. ARGV: from which parcel on, how many.
local parts = call('LRANGE', P .. 'inbox', 3 * ARGV[1], 3 * (ARGV[1] + ARGV[2]) - 1)
local answer = {}
for n = 1, #parts, 3 do
    answer[#answer + 1] = parts[n]
    answer[#answer + 1] = call('GET', P .. 'parcel:' .. parts[n + 2]) or ''
end
return answer
