-- Remembers which Redis this is, once all that may have been lost is due. ARGV: its run, `1` where the last of what was told may be lost:
-- then every company is read anew by all, and no number is given twice for two different documents.
call('HSET', P .. 'meta', 'run', ARGV[1])
if ARGV[2] == '1' then
    call('HINCRBY', P .. 'meta', 'revision', 1000)
    for _, company in ipairs(call('SMEMBERS', P .. 'companies')) do revise(company) end
    revise()
end
return 1
