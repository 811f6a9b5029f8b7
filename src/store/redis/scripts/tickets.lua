-- Tickets that are remembered, each with its end.
return call('ZRANGE', P .. 'tickets', 0, -1, 'WITHSCORES')
