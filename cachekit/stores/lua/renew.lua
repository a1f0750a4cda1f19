-- Hold a lease longer, if it is still ours.
-- KEYS: lease  ARGV: token, life in ms
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, 16) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
