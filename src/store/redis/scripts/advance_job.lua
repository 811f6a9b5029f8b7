-- Keeps how far a job has come. ARGV: name, document, then mailboxes that it is done with.
if call('EXISTS', P .. 'job:' .. ARGV[1]) == 0 then return 0 end
call('SET', P .. 'job:' .. ARGV[1], ARGV[2])
for n = 3, #ARGV do call('SREM', P .. 'job-mailboxes:' .. ARGV[1], ARGV[n]) end
return 1
