-- Adds an entry to the trail. ARGV: entry, entries kept.
note(ARGV[1], ARGV[2])
return 1
