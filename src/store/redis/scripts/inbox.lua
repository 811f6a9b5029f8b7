-- What is in the inbox: of each parcel when it came, and its entries. ARGV: from where, how many.
return call('LRANGE', P .. 'inbox', ARGV[1], ARGV[1] + ARGV[2] - 1)
