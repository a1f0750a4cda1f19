-- KEYS: index of live sessions
-- Returns how many live, as far as is known.
local now = redis.call('TIME')
return redis.call('ZCOUNT', KEYS[1], '(' .. string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)), '+inf')
