-- Does once what a user has to be allowed who serves this service, and changes nothing by it: writing, and telling on a channel.
call('DEL', P .. 'nothing')
call('PUBLISH', P .. 'nothing', '')
return 1
