-- Takes a replica off the register, with its duties. ARGV: replica.
call('ZREM', P .. 'alive', ARGV[1])
call('HDEL', P .. 'replicas', ARGV[1])
local duties = call('HGETALL', P .. 'duties')
for n = 1, #duties, 2 do
    if string.match(duties[n + 1], '^%d+ (.*)$') == ARGV[1] then call('HDEL', P .. 'duties', duties[n]) end
end
return 1
