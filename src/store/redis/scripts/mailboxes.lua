-- All that a store keeps of mailboxes, also what a lease has of it. ARGV: numbers. Answers for each: due time, urgency, since when the lease has
-- something and since when something waits, both in lines, document, announced write.
local answer = {}
for n, id in ipairs(ARGV) do
    local m = call('HMGET', P .. 'm:' .. id, 'd', 'u', 'hs', 'ps')
    local d = call('MGET', P .. 'held:' .. id, P .. 'waiting:' .. id, P .. 'state:' .. id, P .. 'intent:' .. id)
    answer[n] = { m[1] or '', m[2] or '0', m[3] or '', m[4] or '', d[1] or '', d[2] or '', d[3] or '', d[4] }
end
return answer
