-- Keeps how a job ended. ARGV: name, document, entry of the trail, entries kept.
note(ARGV[3], ARGV[4])
if call('EXISTS', P .. 'job:' .. ARGV[1]) == 0 then return 0 end
call('SET', P .. 'job:' .. ARGV[1], ARGV[2])
call('DEL', P .. 'job-mailboxes:' .. ARGV[1])
return 1
