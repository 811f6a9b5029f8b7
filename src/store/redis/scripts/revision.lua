-- The number of the last change of a company.
return tonumber(call('HGET', P .. 'meta', 'revision') or 0)
