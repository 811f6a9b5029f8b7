-- Begins a copy into this store. ARGV: name of the copy, highest numbers of mailboxes and of the trail, generation, revision. Answers up to which
-- number mailboxes have to be cleared away; or how many companies, mailboxes, entries, jobs and tickets there are, and nothing is changed.
local meta = P .. 'meta'
if call('HEXISTS', meta, 'copying') == 0 then
    local has = { call('SCARD', P .. 'companies'), number(call('HGET', meta, 'mailboxes')) or 0, call('LLEN', P .. 'trail'),
        call('ZCARD', P .. 'jobs'), call('ZCOUNT', P .. 'tickets', text(clock('')), '+inf') }
    for _, count in ipairs(has) do
        if count ~= 0 then return has end
    end
end
call('HSET', meta, 'copying', ARGV[1])
for n, name in ipairs({ 'last', 'trail', 'generation', 'revision' }) do
    if tonumber(ARGV[n + 1]) > (number(call('HGET', meta, name)) or 0) then call('HSET', meta, name, ARGV[n + 1]) end
end
return tonumber(call('HGET', meta, 'last') or 0)
