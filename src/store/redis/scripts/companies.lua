-- All companies. Answers for each: name, revision, applied, draft, standing.
local answer = {}
for _, company in ipairs(call('SMEMBERS', P .. 'companies')) do
    local d = call('HMGET', P .. 'company:' .. company, 'revision', 'applied', 'draft', 'standing')
    answer[#answer + 1] = { company, d[1], d[2], d[3], d[4] }
end
return answer
