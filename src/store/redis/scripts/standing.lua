-- Stores what became known of a company. ARGV: time, company, document, entry of the trail (empty: none), entries kept, urgency and line of
-- the mark that is made of all, urgency and line of that of those who were taken out. Answers the revision.
local now, company = clock(ARGV[1]), ARGV[2]
note(ARGV[4], ARGV[5])
call('SADD', P .. 'companies', company)
call('HSET', P .. 'company:' .. company, 'standing', ARGV[3])
mark_users(company, now, ARGV[6], ARGV[7], ARGV[8], ARGV[9])
return revise(company)
