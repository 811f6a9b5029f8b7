-- Clears away what an unfinished copy, or nobody knows who, has left of mailboxes. ARGV: name of the copy, first number, last number. Answers 0
-- where another copy was begun.
if call('HGET', P .. 'meta', 'copying') ~= ARGV[1] then return 0 end
for id = tonumber(ARGV[2]), tonumber(ARGV[3]) do
    local n = text(id)
    local company = call('HGET', P .. 'm:' .. n, 'c')
    if company then call('DEL', P .. 'users:' .. company, P .. 'ready:' .. company, P .. 'to-read:' .. company) end
    call('DEL', P .. 'm:' .. n, P .. 'state:' .. n, P .. 'waiting:' .. n, P .. 'held:' .. n, P .. 'intent:' .. n)
end
return 1
