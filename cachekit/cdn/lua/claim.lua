-- Take the right to deliver, and what is due.
-- KEYS: due, items, lease, pace
-- ARGV: token, lease in ms, now, most, seconds between calls (0 for none), burst
-- Returns what to do, the seconds to wait (negative for "until something is put"), and pairs of target and state.
local now = tonumber(ARGV[3])
local holder = redis.call('GET', KEYS[3])
if holder and holder ~= ARGV[1] then
  return {'held', tostring(redis.call('PTTL', KEYS[3]) / 1000)}
end
local names = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[3], 'LIMIT', 0, ARGV[4])
if #names == 0 then
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return {'idle', first[2] and tostring(tonumber(first[2]) - now) or '-1'}
end
local hold = tonumber(redis.call('HGET', KEYS[4], 'hold') or '0')
if hold > now then
  return {'wait', tostring(hold - now)}
end
local interval = tonumber(ARGV[5])
if interval > 0 then -- a token bucket, as the time at which it would be full again (GCRA)
  local full = math.max(tonumber(redis.call('HGET', KEYS[4], 'full') or '0'), now)
  local early = full - now - interval * (tonumber(ARGV[6]) - 1)
  if early > 0.000001 then
    return {'wait', tostring(early)}
  end
  redis.call('HSET', KEYS[4], 'full', string.format('%.6f', full + interval))
end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
local reply = {'due', '0'}
for _, name in ipairs(names) do
  reply[#reply + 1] = name
  reply[#reply + 1] = redis.call('HGET', KEYS[2], name) or ''
end
return reply
