-- The layout of what is here; nothing where nothing is.
return tonumber(call('HGET', P .. 'meta', 'layout') or 0)
