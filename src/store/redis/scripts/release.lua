-- Hands a lease back. ARGV: time, mailbox, generation, `1` where what is announced was announced under this lease, and not written. Answers 1;
-- nothing where it is lost.
local now, id = clock(ARGV[1]), ARGV[2]
if not holds(id, ARGV[3], now) then return false end
if ARGV[4] == '1' then call('DEL', P .. 'intent:' .. id) end
take_back(id, now)
return 1
