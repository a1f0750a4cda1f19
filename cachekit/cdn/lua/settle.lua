-- Say what became of targets, and give the right to deliver back.
-- KEYS: due, items, since, dead, counts, lease, pace
-- ARGV: token, now, hold (when calls may go on, 0 for now), error, then for each target: name, generation, what, due, batch
local now = tonumber(ARGV[2])
for i = 5, #ARGV, 5 do
  local name, gen, what, due, batch = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4])
  local raw = redis.call('HGET', KEYS[2], name)
  local item = raw and cjson.decode(raw)
  if what == 'done' then
    redis.call('HINCRBY', KEYS[5], (item and item.phase == 1) and 'again' or 'delivered', 1)
  elseif what == 'retry' then
    redis.call('HINCRBY', KEYS[5], 'failed', 1)
  end
  if item and not item.dead then
    if what == 'done' then
      if item.gen ~= gen then -- it was put again meanwhile: at once once more
        item.tries, item.batch = 0, 0
      elseif item.phase == 0 and tonumber(due) > 0 then
        item.phase, item.tries, item.batch = 1, 0, 0
        redis.call('ZADD', KEYS[1], due, name)
        redis.call('ZREM', KEYS[3], name)
      else
        redis.call('HDEL', KEYS[2], name)
        redis.call('ZREM', KEYS[1], name)
        redis.call('ZREM', KEYS[3], name)
        item = nil
      end
    elseif what == 'dead' and item.gen == gen then
      item.dead = true
      redis.call('ZREM', KEYS[1], name)
      redis.call('ZREM', KEYS[3], name)
      redis.call('ZADD', KEYS[4], now, name)
    else -- retry, split, or an end that came too early
      item.batch = batch
      if what ~= 'split' then item.tries = item.tries + 1 end
      redis.call('ZADD', KEYS[1], due, name)
    end
    if item then
      redis.call('HSET', KEYS[2], name, cjson.encode(item))
    end
  end
end
redis.call('HSET', KEYS[7], 'hold', ARGV[3])
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[5], 'error', ARGV[4], 'error_at', ARGV[2])
end
if redis.call('GET', KEYS[6]) == ARGV[1] then
  redis.call('DEL', KEYS[6])
end
return 1
