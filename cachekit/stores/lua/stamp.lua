#!lua flags=allow-oom
-- Give a tag a new stamp, where announcing it takes a command of its own.
-- KEYS: tag
-- ARGV: random bytes, life of the stamp in ms
local time = redis.call('TIME')
local us = time[1] * 1000000 + time[2]
local high = math.floor(us / 4294967296)
redis.call('SET', KEYS[1], struct.pack('>I4I4', high, us - high * 4294967296) .. ARGV[1], 'PX', ARGV[2])
return 1
