-- Companies that are known by name only.
local answer = {}
for _, company in ipairs(call('SMEMBERS', P .. 'companies')) do
    if call('EXISTS', P .. 'company:' .. company) == 0 then answer[#answer + 1] = company end
end
return answer
