-- Ends a copy: a service may start, and the first makes every mailbox due. ARGV: name of the copy. Answers 0 where another copy was begun.
if call('HGET', P .. 'meta', 'copying') ~= ARGV[1] then return 0 end
call('HSET', P .. 'meta', 'run', '')
call('HDEL', P .. 'meta', 'copying')
return 1
