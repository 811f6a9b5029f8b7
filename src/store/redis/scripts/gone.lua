-- Ends the last turn of a mailbox. ARGV: time, mailbox, generation. Answers 1; nothing where the lease is lost. A user who was taken in
-- again meanwhile stays: what marked the mailbox then is still to be worked off.
local now, id = clock(ARGV[1]), ARGV[2]
if not holds(id, ARGV[3], now) then return false end
local key = P .. 'm:' .. id
local m = call('HMGET', key, 'c', 'e')
local users = P .. 'users:' .. m[1]
unhold(id)
if call('HGET', users, m[2]) == id .. 'r' then
    call('HDEL', users, m[2])
    call('DEL', key, P .. 'state:' .. id, P .. 'intent:' .. id, P .. 'waiting:' .. id)
    call('HINCRBY', P .. 'meta', 'mailboxes', -1)
    revise(m[1])
else
    call('HDEL', key, 'd', 'ru', 'rs')
    call('HSET', key, 'u', 2)
    place(id, now)
end
return 1
