-- Takes a company out that has no mailboxes left. ARGV: company. Answers whether it did.
if call('EXISTS', P .. 'users:' .. ARGV[1]) == 1 then return 0 end
call('DEL', P .. 'company:' .. ARGV[1])
call('SREM', P .. 'companies', ARGV[1])
revise()
return 1
