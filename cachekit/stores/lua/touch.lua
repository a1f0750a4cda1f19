-- Read the stamp of a tag that lies in a slot of its own; make it if there is none.
-- KEYS: tag
-- ARGV: random bytes, life in ms ("0": for ever), "1" to give a stamp that is there at least that life
-- Returns {stamp, microseconds}
local time = redis.call('TIME')
local stamp = redis.call('GET', KEYS[1])
if not stamp then
  stamp = struct.pack('>I4I4', 0, 0) .. ARGV[1]  -- time 0: new, and no invalidation
  if ARGV[2] == '0' then
    redis.call('SET', KEYS[1], stamp)
  else
    redis.call('SET', KEYS[1], stamp, 'PX', ARGV[2])
  end
elseif ARGV[3] == '1' and ARGV[2] == '0' then
  redis.call('PERSIST', KEYS[1])
elseif ARGV[3] == '1' then
  redis.call('PEXPIRE', KEYS[1], ARGV[2], 'GT')
end
return {stamp, string.format('%.0f', time[1] * 1000000 + time[2])}
