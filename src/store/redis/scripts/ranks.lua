-- Members of a sorted set with their scores. ARGV: its name, first rank, last rank.
return call('ZRANGE', P .. ARGV[1], ARGV[2], ARGV[3], 'WITHSCORES')
