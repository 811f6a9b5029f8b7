-- The highest generation of some mailboxes. ARGV: the first number and the last.
local newest = 0
for id = tonumber(ARGV[1]), tonumber(ARGV[2]) do
    newest = math.max(newest, number(call('HGET', P .. 'm:' .. text(id), 'g')) or 0)
end
return text(newest)
