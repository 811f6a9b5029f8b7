-- Says that a replica is alive. ARGV: time, replica, document, microseconds after which one that was silent is taken for gone. Answers how many
-- others are alive, and 1 where this Redis is not the one that was here before (it was started anew, or another took over):
-- what it was told last may be lost.
local now = clock(ARGV[1])
call('ZADD', P .. 'alive', text(now), ARGV[2])
call('HSET', P .. 'replicas', ARGV[2], ARGV[3])
for _, silent in ipairs(call('ZRANGEBYSCORE', P .. 'alive', '-inf', text(now - tonumber(ARGV[4])))) do
    call('ZREM', P .. 'alive', silent)
    call('HDEL', P .. 'replicas', silent)
end
local run = string.match(call('INFO', 'server'), 'run_id:(%w+)') or ''
local before = call('HGET', P .. 'meta', 'run')
local other = before and before ~= run
if not before then call('HSET', P .. 'meta', 'run', run) end
return { call('ZCARD', P .. 'alive') - 1, other and run or '' }
