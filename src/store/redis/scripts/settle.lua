-- Ends a turn. ARGV: time, mailbox, generation, document, due time (empty: none), urgency, urgency of the reading that was put off
-- (empty: none). Answers 1; nothing where the lease is lost.
local now, id = clock(ARGV[1]), ARGV[2]
local key = P .. 'm:' .. id
local m = call('HMGET', key, 'g', 't', 'c', 'pd', 'rs', 'a')
if m[1] ~= ARGV[3] or not m[2] or tonumber(m[2]) <= now then return false end
call('SET', P .. 'state:' .. id, ARGV[4])
call('DEL', P .. 'intent:' .. id, P .. 'held:' .. id)
call('ZREM', P .. (m[6] and 'ahead' or 'leases'), id)
local due = number(ARGV[5] ~= '' and ARGV[5])
local gone = { 't', 'w', 'f', 'hs', 'hu', 'a' }
if not due then gone[#gone + 1] = 'd' end
if ARGV[7] ~= '' then
    -- Who was handed out for a mark meanwhile keeps the place in the lane.
    call('HSET', key, 'ru', ARGV[7], 'rs', m[5] or text(now))
elseif m[5] then
    gone[#gone + 1] = 'ru'
    gone[#gone + 1] = 'rs'
end
call('HDEL', key, unpack(gone))
if due and due > now and not m[4] and ARGV[7] == '' then
    -- By far the most usual: nothing has come meanwhile, and it is due later.
    local place, kind = text(due), ARGV[6] == '0' and 'e' or 't'
    call('HSET', key, 'u', ARGV[6], 'd', place, 'z', kind .. place)
    enter_later(kind, due, id)
else
    if due then call('HSET', key, 'u', ARGV[6], 'd', ARGV[5]) else call('HSET', key, 'u', ARGV[6]) end
    place(id, now)
end
return 1
