-- One company. ARGV: company. Answers its record as in `companies`, and its users; nothing where there is none.
local company = ARGV[1]
if call('SISMEMBER', P .. 'companies', company) == 0 then return false end
local d = call('HMGET', P .. 'company:' .. company, 'revision', 'applied', 'draft', 'standing')
return { { company, d[1], d[2], d[3], d[4] }, call('HGETALL', P .. 'users:' .. company) }
