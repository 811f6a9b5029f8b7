-- Jobs, the oldest first. ARGV: nothing, or the name of one. Answers name, document, version and whether it is cancelled of each.
local answer = {}
for _, job in ipairs(ARGV[1] and { ARGV[1] } or call('ZRANGE', P .. 'jobs', 0, -1)) do
    local m = call('HMGET', P .. 'job:' .. job, 'd', 'v', 'c')
    if m[1] then
        answer[#answer + 1] = job
        answer[#answer + 1] = m[1]
        answer[#answer + 1] = m[2]
        answer[#answer + 1] = m[3] or '0'
    end
end
return answer
