-- Takes a duty, or goes on with it. ARGV: time, duty, replica, length. Answers 1; 0 where another has it.
local now = clock(ARGV[1])
local holder = call('HGET', P .. 'duties', ARGV[2])
if holder then
    local untl, name = string.match(holder, '^(%d+) (.*)$')
    if name ~= ARGV[3] and tonumber(untl) > now then return 0 end
end
call('HSET', P .. 'duties', ARGV[2], text(now + tonumber(ARGV[4])) .. ' ' .. ARGV[3])
return 1
