-- Writes spent tickets. ARGV: name of the copy, then for each: end, ticket. Answers 0 where another copy was begun.
if call('HGET', P .. 'meta', 'copying') ~= ARGV[1] then return 0 end
for n = 2, #ARGV, 2 do call('ZADD', P .. 'tickets', ARGV[n], ARGV[n + 1]) end
return 1
