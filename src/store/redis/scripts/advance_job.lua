-- Keeps how far a job has come. ARGV: name, version, document, then mailboxes that it is done with. Answers 0 where its version is another.
local key = P .. 'job:' .. ARGV[1]
if call('HGET', key, 'v') ~= ARGV[2] then return 0 end
call('HSET', key, 'd', ARGV[3])
call('HINCRBY', key, 'v', 1)
for n = 4, #ARGV do call('SREM', P .. 'job-mailboxes:' .. ARGV[1], ARGV[n]) end
return 1
