-- Put targets into the outbox of one purger.
-- KEYS: due, items, since, dead, counts
-- ARGV: now, due, target...
-- One that waits already is not put twice; its generation changes, so that a delivery that began earlier does not end it.
local now, due = tonumber(ARGV[1]), tonumber(ARGV[2])
local added = 0
for i = 3, #ARGV do
  local name = ARGV[i]
  local raw = redis.call('HGET', KEYS[2], name)
  local item = raw and cjson.decode(raw)
  local gen = redis.call('HINCRBY', KEYS[5], 'gen', 1)
  if item and not item.dead and item.phase == 0 then
    item.gen, item.last = gen, now
  else
    item = {gen = gen, since = now, last = now, tries = 0, phase = 0, batch = 0, dead = false}
    redis.call('ZADD', KEYS[1], due, name)
    redis.call('ZADD', KEYS[3], now, name)
    redis.call('ZREM', KEYS[4], name)
    added = added + 1
  end
  redis.call('HSET', KEYS[2], name, cjson.encode(item))
end
return added
