-- Entries of the trail, the newest first. ARGV: how many to skip, how many.
return call('LRANGE', P .. 'trail', ARGV[1], tonumber(ARGV[1]) + tonumber(ARGV[2]) - 1)
