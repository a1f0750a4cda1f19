-- Keep a value whose stamps were read elsewhere, because its tags lie in other slots.
-- KEYS: announcement, value, lease
-- ARGV: mode and proof as for keep.lua, life in ms ("0": for ever), channel, the value with its stamps
-- Returns 1 when it was kept.
local held = redis.call('GET', KEYS[3]) or ''
if ARGV[1] == 'lease' then
  if string.sub(held, 1, 16) ~= ARGV[2] then return 0 end
elseif ARGV[1] == 'swap' then
  if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then return 0 end
end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[2], ARGV[5])
else
  redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[3])
end
redis.call('DEL', KEYS[3])
if ARGV[1] ~= 'lease' or #held > 16 then announce(KEYS[1], ARGV[4]) end
return 1
