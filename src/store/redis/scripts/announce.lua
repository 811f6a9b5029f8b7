-- Says that a replica is alive. ARGV: time, replica, document, microseconds after which one that was silent is taken for gone, `1` where it was
-- just started. Answers the run of this Redis where every mailbox is to be made due: it was started and nobody else is alive,
-- or this Redis is not the one that was here before. It goes on answering so until somebody has done it (`caught_up`). Answers also
-- whether that Redis is another, and whether it knew nothing at all of this service. ARGV[6] is the layout that is written.
local now = clock(ARGV[1])
-- First of all what a Redis that is full refuses: once a script has written, it may write more.
call('HSET', P .. 'replicas', ARGV[2], ARGV[3])
for _, silent in ipairs(call('ZRANGEBYSCORE', P .. 'alive', '-inf', text(now - tonumber(ARGV[4])))) do
    if silent ~= ARGV[2] then
        call('ZREM', P .. 'alive', silent)
        call('HDEL', P .. 'replicas', silent)
    end
end
call('ZADD', P .. 'alive', text(now), ARGV[2])
local alone = ARGV[5] == '1' and call('ZCARD', P .. 'alive') == 1
local run = string.match(call('INFO', 'server'), 'run_id:(%w+)') or ''
local before = call('HGET', P .. 'meta', 'run')
local empty = call('HSETNX', P .. 'meta', 'layout', ARGV[6])
-- One that is another goes on being told as such until every mailbox knows.
if alone and (not before or before == '' or before == run) then call('HSET', P .. 'meta', 'run', '') end
return { before and before ~= '' and before ~= run and 1 or 0, (alone or before ~= run) and run or '', empty }
