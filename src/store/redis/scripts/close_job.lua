-- Keeps how a job ended. ARGV: name, version, document, entry of the trail, entries kept. Answers 0 where its version is another.
local key = P .. 'job:' .. ARGV[1]
if call('HGET', key, 'v') ~= ARGV[2] then return 0 end
note(ARGV[4], ARGV[5])
call('HSET', key, 'd', ARGV[3])
call('HINCRBY', key, 'v', 1)
call('DEL', P .. 'job-mailboxes:' .. ARGV[1])
return 1
