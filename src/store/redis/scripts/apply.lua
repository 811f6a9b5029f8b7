-- Makes a company's document live. ARGV: time, company, document, entry of the trail (empty: none), entries kept, urgency and line of the
-- mark that is made of all, urgency and line of that of those who were taken out, then all extensions. Answers the revision, then
-- extension and value of each user as they are in `users:`.
local now, company = clock(ARGV[1]), ARGV[2]
note(ARGV[4], ARGV[5])
call('SADD', P .. 'companies', company)
call('HSET', P .. 'company:' .. company, 'applied', ARGV[3])
call('HDEL', P .. 'company:' .. company, 'draft')
local revision = revise(company)
local users = P .. 'users:' .. company
local left = {}
local known = call('HGETALL', users)
for n = 1, #known, 2 do left[known[n]] = string.match(known[n + 1], '%d+') end
for n = 10, #ARGV do
    local extension = ARGV[n]
    local id = left[extension]
    left[extension] = nil
    if not id and call('HEXISTS', users, extension) == 0 then
        id = text(call('HINCRBY', P .. 'meta', 'last', 1))
        call('HINCRBY', P .. 'meta', 'mailboxes', 1)
        call('HSET', P .. 'm:' .. id, 'c', company, 'e', extension, 'u', 1)
    end
    if id then call('HSET', users, extension, id) end
end
for extension, id in pairs(left) do call('HSET', users, extension, id .. 'r') end
mark_users(company, now, ARGV[6], ARGV[7], ARGV[8], ARGV[9])
return { revision, call('HGETALL', users) }
