-- Hands a lease back. ARGV: time, mailbox, generation. Answers 1; nothing where it is lost.
local now, id = clock(ARGV[1]), ARGV[2]
if not holds(id, ARGV[3], now) then return false end
take_back(id, now)
return 1
