-- Where counting goes on: mailboxes, trail, generations, revisions; the time, by which generations count too; how many mailboxes there are said to be.
local n = call('HMGET', P .. 'meta', 'last', 'trail', 'generation', 'revision', 'mailboxes')
return { n[1] or '0', n[2] or '0', n[3] or '0', n[4] or '0', text(clock('')), n[5] or '0' }
