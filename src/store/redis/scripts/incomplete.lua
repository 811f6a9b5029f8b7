-- Whether a copy into this store was begun and not finished.
return call('HEXISTS', P .. 'meta', 'copying')
