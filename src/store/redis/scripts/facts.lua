-- What is there of mailboxes, to be held against the rest. ARGV: first number, last number. Answers for each of which anything is there: number, `1`
-- where it has a record, company, extension, place, place in the lane for reading, end of the lease, `1` where something is held, `1` where it
-- is due at some time, `1` where it is leased ahead.
local answer = {}
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
    local id = text(n)
    local key = P .. 'm:' .. id
    local record, held = call('EXISTS', key), call('EXISTS', P .. 'held:' .. id)
    if record + held + call('EXISTS', P .. 'state:' .. id, P .. 'waiting:' .. id, P .. 'intent:' .. id) > 0 then
        local m = call('HMGET', key, 'c', 'e', 'z', 'zq', 't', 'd', 'pd', 'a')
        answer[#answer + 1] = { id, record, m[1] or '', m[2] or '', m[3] or '', m[4] or '', m[5] or '', held, (m[6] or m[7]) and 1 or 0,
            m[8] and 1 or 0 }
    end
end
return answer
