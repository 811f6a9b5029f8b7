-- Clears away the rest. ARGV: name of the copy. Answers 0 where another copy was begun.
if call('HGET', P .. 'meta', 'copying') ~= ARGV[1] then return 0 end
for _, company in ipairs(call('SMEMBERS', P .. 'companies')) do
    call('DEL', P .. 'company:' .. company, P .. 'users:' .. company, P .. 'ready:' .. company, P .. 'to-read:' .. company)
end
for _, job in ipairs(call('ZRANGE', P .. 'jobs', 0, -1)) do
    call('DEL', P .. 'job:' .. job, P .. 'job-mailboxes:' .. job)
end
for n, part in ipairs(call('LRANGE', P .. 'inbox', 0, -1)) do
    if n % 3 == 0 then call('DEL', P .. 'parcel:' .. part) end
end
for _, key in ipairs({ 'companies', 'inbox', 'timed', 'edges', 'ahead', 'heads', 'reading-heads', 'leases', 'trail', 'jobs', 'tickets' }) do
    call('DEL', P .. key)
end
-- What was announced lately was so of other mailboxes.
local window = math.floor(clock('') / WINDOW)
call('DEL', P .. 'announced:' .. window, P .. 'announced:' .. window - 1)
call('HSET', P .. 'meta', 'mailboxes', 0, 'inbox', 0)
return 1
