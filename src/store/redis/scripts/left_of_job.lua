-- Mailboxes that a job is not done with. ARGV: name.
return call('SMEMBERS', P .. 'job-mailboxes:' .. ARGV[1])
