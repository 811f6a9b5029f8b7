-- Keys that are of another type than they should be. ARGV: where to look on (`0` at first), at how many keys about, then with what each kind of
-- key begins, or its whole name, and its type. Answers where to look on (`0`: nowhere), and of each such key its name, its type, and the right one.
local wanted = {}
for n = 3, #ARGV, 2 do wanted[ARGV[n]] = ARGV[n + 1] end
local keys = call('SCAN', ARGV[1], 'MATCH', P .. '*', 'COUNT', ARGV[2])
local answer = { keys[1] }
for _, key in ipairs(keys[2]) do
    local name = string.sub(key, #P + 1)
    local right = wanted[string.match(name, '^[^:]*:?')]
    local is = right and call('TYPE', key).ok
    if right and is ~= right and is ~= 'none' then
        for _, part in ipairs({ name, is, right }) do answer[#answer + 1] = part end
    end
end
return answer
