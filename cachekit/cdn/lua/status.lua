-- KEYS: due, since, dead, counts
-- Returns pending, when the oldest was put, all that is due at some time, dead, and the counts as pairs.
local oldest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return {
  redis.call('ZCARD', KEYS[2]), oldest[2] or '', redis.call('ZCARD', KEYS[1]), redis.call('ZCARD', KEYS[3]),
  redis.call('HGETALL', KEYS[4]), redis.call('ZRANGE', KEYS[3], 0, 99),
}
