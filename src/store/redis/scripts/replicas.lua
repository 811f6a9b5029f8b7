-- Replicas that are alive. ARGV: time, microseconds after which one that was silent is taken for gone. Answers for each: document, when it was
-- heard of last.
local since = clock(ARGV[1]) - tonumber(ARGV[2])
local answer = {}
local alive = call('ZRANGEBYSCORE', P .. 'alive', '(' .. text(since), '+inf', 'WITHSCORES')
for n = 1, #alive, 2 do
    answer[#answer + 1] = call('HGET', P .. 'replicas', alive[n]) or '{}'
    answer[#answer + 1] = text(tonumber(alive[n + 1]))
end
return answer
