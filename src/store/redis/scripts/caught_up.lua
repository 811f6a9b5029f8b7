-- Remembers which Redis this is, once all that may have been lost is due. ARGV: its run.
call('HSET', P .. 'meta', 'run', ARGV[1])
return 1
