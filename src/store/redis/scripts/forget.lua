-- Takes a company out that has no mailboxes left. ARGV: company. Answers whether it did.
local company = ARGV[1]
if call('EXISTS', P .. 'users:' .. company) == 1 or call('SREM', P .. 'companies', company) == 0 then return 0 end
call('DEL', P .. 'company:' .. company)
revise()
return 1
