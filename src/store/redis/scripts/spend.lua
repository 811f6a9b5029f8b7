-- Spends a ticket. ARGV: ticket, seconds for which it is remembered. Answers 1; nothing where it was spent before.
return call('SET', P .. 'ticket:' .. ARGV[1], '', 'NX', 'EX', ARGV[2]) and 1
