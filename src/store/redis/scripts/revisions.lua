-- Answers each company and its revision.
local answer = {}
for _, company in ipairs(call('SMEMBERS', P .. 'companies')) do
    answer[#answer + 1] = company
    answer[#answer + 1] = call('HGET', P .. 'company:' .. company, 'revision') or '0'
end
return answer
