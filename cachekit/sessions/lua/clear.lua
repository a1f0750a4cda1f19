-- End sessions of one shard, whoever they belong to. The indexes of their owners forget them when they are next asked.
-- KEYS: index of live sessions
-- ARGV: what the keys of sessions begin with, how many to end at most
-- The keys of the sessions have the same hash tag as KEYS, so that all lie in one slot.
-- Returns how many ended, and how many are still listed.
local ended = 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[2] - 1)) do
  local key = ARGV[1] .. member
  if redis.call('GETRANGE', key, 0, 2) == 'CS1' then ended = ended + redis.call('DEL', key) end
  redis.call('ZREM', KEYS[1], member)
end
return {ended, redis.call('ZCARD', KEYS[1])}
