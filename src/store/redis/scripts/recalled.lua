-- What was held ahead and has to be handed back. ARGV: replica, then what it has read before. Answers each as `mailbox generation`, a
-- thousand at most; whatever is not read goes on being told, since an answer may get lost.
local recalled = P .. 'recalled:' .. ARGV[1]
if #ARGV > 1 then call('SREM', recalled, unpack(ARGV, 2)) end
return call('SRANDMEMBER', recalled, 1000)
