-- Writes companies. ARGV: name of the copy, then for each: company, revision, and thrice `1` with a document and `0` without, document. Answers 0
-- where another copy was begun.
if call('HGET', P .. 'meta', 'copying') ~= ARGV[1] then return 0 end
for n = 2, #ARGV, 8 do
    local key = P .. 'company:' .. ARGV[n]
    call('SADD', P .. 'companies', ARGV[n])
    call('HSET', key, 'revision', ARGV[n + 1])
    for index, name in ipairs({ 'applied', 'draft', 'standing' }) do
        if ARGV[n + 2 * index] == '1' then call('HSET', key, name, ARGV[n + 2 * index + 1]) end
    end
end
return 1
