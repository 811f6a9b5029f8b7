-- Keeps a new job. ARGV: name, document, jobs kept that have ended, entry of the trail, entries kept, then its mailboxes.
local job = ARGV[1]
note(ARGV[4], ARGV[5])
call('ZADD', P .. 'jobs', call('HINCRBY', P .. 'meta', 'job', 1), job)
call('SET', P .. 'job:' .. job, ARGV[2])
for n = 6, #ARGV do call('SADD', P .. 'job-mailboxes:' .. job, ARGV[n]) end
local old = call('ZRANGE', P .. 'jobs', 0, -1 - tonumber(ARGV[3]))
for _, name in ipairs(old) do
    if call('EXISTS', P .. 'job-mailboxes:' .. name) == 0 then
        call('ZREM', P .. 'jobs', name)
        call('DEL', P .. 'job:' .. name)
    end
end
return 1
