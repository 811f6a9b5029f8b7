-- Answers the run of this Redis, where it is not the one that was here before and not every mailbox has been made due because of that.
local before = call('HGET', P .. 'meta', 'run')
if not before or before == '' then return '' end
local run = string.match(call('INFO', 'server'), 'run_id:(%w+)')
return run ~= before and run or ''
