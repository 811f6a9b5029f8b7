-- The document of a mailbox. ARGV: mailbox.
if call('EXISTS', P .. 'm:' .. ARGV[1]) == 0 then return false end
return call('GET', P .. 'state:' .. ARGV[1]) or ''
