-- All jobs, the oldest first. Answers name and document of each.
local answer = {}
for _, job in ipairs(call('ZRANGE', P .. 'jobs', 0, -1)) do
    answer[#answer + 1] = job
    answer[#answer + 1] = call('GET', P .. 'job:' .. job) or ''
end
return answer
