-- Give a lease back, if it is still ours, and tell those who wait for it.
-- KEYS: announcement, lease
-- ARGV: token, channel
local held = redis.call('GET', KEYS[2])
if not held or string.sub(held, 1, 16) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
if #held > 16 then announce(KEYS[1], ARGV[2]) end
return 1
