-- Announces a write. ARGV: time, mailbox, generation, document. Answers 1; nothing where the lease is lost.
local now, id = clock(ARGV[1]), ARGV[2]
if not holds(id, ARGV[3], now) then return false end
call('SET', P .. 'intent:' .. id, ARGV[4])
return 1
