-- Writes a job. ARGV: name of the copy, job, document, version, `1` where it is cancelled, then mailboxes that it is not done with. Answers 0 where
-- another copy was begun.
if call('HGET', P .. 'meta', 'copying') ~= ARGV[1] then return 0 end
local key = P .. 'job:' .. ARGV[2]
call('ZADD', P .. 'jobs', call('HINCRBY', P .. 'meta', 'job', 1), ARGV[2])
call('HSET', key, 'd', ARGV[3], 'v', ARGV[4])
if ARGV[5] == '1' then call('HSET', key, 'c', 1) end
for n = 6, #ARGV do call('SADD', P .. 'job-mailboxes:' .. ARGV[2], ARGV[n]) end
return 1
