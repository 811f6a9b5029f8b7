-- Keeps a draft. ARGV: company, `1` with a document and `0` without, document.
local key = P .. 'company:' .. ARGV[1]
call('SADD', P .. 'companies', ARGV[1])
if ARGV[2] == '1' then call('HSET', key, 'draft', ARGV[3]) else call('HDEL', key, 'draft') end
return 1
