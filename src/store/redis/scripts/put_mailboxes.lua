-- Writes mailboxes. ARGV: name of the copy, generation that is reached, then for each: number, company, extension, `r` where it is retired, due time
-- (empty: none), urgency, since when something waits (empty: unknown), how urgent that is, it in lines (empty: nothing waits), document,
-- `1` with an announced write and `0` without, that. Answers 0 where another copy was begun.
if call('HGET', P .. 'meta', 'copying') ~= ARGV[1] then return 0 end
local now = clock('')
for n = 3, #ARGV, 12 do
    local id, company, extension, retired, due, urgency, since, gathered, lines, document, announced, intent = unpack(ARGV, n, n + 11)
    local key = P .. 'm:' .. id
    call('HSET', P .. 'users:' .. company, extension, id .. retired)
    call('HSET', key, 'c', company, 'e', extension, 'g', ARGV[2], 'u', urgency)
    if due ~= '' then call('HSET', key, 'd', due) end
    if lines ~= '' then
        call('SET', P .. 'waiting:' .. id, lines)
        call('HSET', key, 'pd', since == '' and text(now) or since, 'pu', gathered)
        if since ~= '' then call('HSET', key, 'ps', since) end
    end
    if document ~= '' then call('SET', P .. 'state:' .. id, document) end
    if announced == '1' then call('SET', P .. 'intent:' .. id, intent) end
    place(id, now)
end
call('HINCRBY', P .. 'meta', 'mailboxes', (#ARGV - 2) / 12)
return 1
