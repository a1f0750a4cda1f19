#!lua flags=allow-oom
-- Tell the other processes, and nothing else.
-- KEYS: announcement  ARGV: channel
announce(KEYS[1], ARGV[1])
return 1
