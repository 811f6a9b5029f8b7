-- Writes entries of the trail. ARGV: name of the copy, then entries as they are stored, the oldest first. Answers 0 where another copy was begun.
if call('HGET', P .. 'meta', 'copying') ~= ARGV[1] then return 0 end
for n = 2, #ARGV do call('LPUSH', P .. 'trail', ARGV[n]) end
return 1
