-- Wants a job ended. ARGV: name, entry of the trail, entries kept. Answers 0 where there is nothing to end.
local key = P .. 'job:' .. ARGV[1]
if call('EXISTS', P .. 'job-mailboxes:' .. ARGV[1]) == 0 or call('HSETNX', key, 'c', 1) == 0 then return 0 end
note(ARGV[2], ARGV[3])
revise()
return 1
