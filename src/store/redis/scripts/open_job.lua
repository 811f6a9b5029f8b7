-- Keeps a new job. ARGV: name, document, jobs kept that have ended, entry of the trail, entries kept, then its mailboxes. Answers 0 where there
-- is one of that name.
local job = ARGV[1]
if call('EXISTS', P .. 'job:' .. job) == 1 then return 0 end
note(ARGV[4], ARGV[5])
call('ZADD', P .. 'jobs', call('HINCRBY', P .. 'meta', 'job', 1), job)
call('HSET', P .. 'job:' .. job, 'd', ARGV[2], 'v', 0)
for n = 6, #ARGV do call('SADD', P .. 'job-mailboxes:' .. job, ARGV[n]) end
for _, name in ipairs(call('ZRANGE', P .. 'jobs', 0, -1 - tonumber(ARGV[3]))) do
    if call('EXISTS', P .. 'job-mailboxes:' .. name) == 0 then
        call('ZREM', P .. 'jobs', name)
        call('DEL', P .. 'job:' .. name)
    end
end
revise()
return 1
