-- All users of a company. ARGV: company. Answers extension and value of each.
return call('HGETALL', P .. 'users:' .. ARGV[1])
