-- Makes mailboxes due. ARGV: time, then for each mark: mailbox, from when on (empty: now), urgency, fingerprint (empty: none), line, line
-- without the item. Answers a letter for each: marked, duplicate, coalesced, unknown.
local now = clock(ARGV[1])
-- A version is known again for four to eight minutes.
local window = math.floor(now / 240000000)
local seen, before = P .. 'seen:' .. window, P .. 'seen:' .. window - 1
local answers = {}
local remembered = false
for n = 2, #ARGV, 6 do
    local id, print = ARGV[n], ARGV[n + 3]
    local answer
    local m = waiting_of(id)
    if not m[1] then
        answer = 'u'
    elseif print ~= '' and (call('SISMEMBER', before, print) == 1 or call('SADD', seen, print) == 0) then
        answer = 'd'
    else
        remembered = remembered or print ~= ''
        local at = ARGV[n + 1] == '' and now or tonumber(ARGV[n + 1])
        answer = gather(id, m, now, at, tonumber(ARGV[n + 2]), ARGV[n + 4], ARGV[n + 5]) and 'm' or 'c'
    end
    answers[#answers + 1] = answer
end
if remembered then call('EXPIRE', seen, 600) end
return table.concat(answers)
