#!lua flags=allow-oom
-- Give tags a new stamp, which drops every entry that carries the old one, and tell the other processes.
-- KEYS: announcement, tag...
-- ARGV: random bytes, life of the stamp in ms, channel
local time = redis.call('TIME')
local us = time[1] * 1000000 + time[2]
local high = math.floor(us / 4294967296)
local stamp = struct.pack('>I4I4', high, us - high * 4294967296) .. ARGV[1]
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], stamp, 'PX', ARGV[2])
end
announce(KEYS[1], ARGV[3])
return 1
