-- Stores one of a company's documents. ARGV: company, `draft` or `standing`, `1` with a document and `0` without, document, entry of the trail (empty:
-- none), entries kept. Answers the company's revision, which a draft leaves as it is.
local company, field = ARGV[1], ARGV[2]
local key = P .. 'company:' .. company
note(ARGV[5], ARGV[6])
call('SADD', P .. 'companies', company)
if ARGV[3] == '1' then call('HSET', key, field, ARGV[4]) else call('HDEL', key, field) end
if field == 'draft' then return tonumber(call('HGET', key, 'revision') or 0) end
return revise(company)
