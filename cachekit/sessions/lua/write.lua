-- Keep a session if it still is what the writer read. Times are those of the server.
-- KEYS: session, index of live sessions, index of its owner (if ARGV[9] is not empty)
-- ARGV: version that must be there ("": a new session), member, ttl in ms, slack in ms, created ("": now), deadline
--       (milliseconds since the epoch; of one made now: milliseconds from now; "0": none; only of new ones), new version,
--       ttl as written, owner ("": nobody), owner as written, body
-- Returns {"done"}, {"gone"}, {"moved", note} or {"conflict", what is there}.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local created, deadline, seen = ARGV[5], tonumber(ARGV[6]), nil
if ARGV[1] == '' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return {'conflict', redis.call('GET', KEYS[1])} end
  if created == '' then
    created = string.format('%015.0f', now)
    if deadline > 0 then deadline = now + deadline end
  end
else
  local head = redis.call('GETRANGE', KEYS[1], 0, 100)
  if head == '' then return {'gone'} end
  if string.sub(head, 1, 3) == 'CM1' then return {'moved', redis.call('GET', KEYS[1])} end
  if string.sub(head, 34, 49) ~= ARGV[1] then return {'conflict', redis.call('GET', KEYS[1])} end
  created, deadline = string.sub(head, 4, 18), tonumber(string.sub(head, 65, 79))
  -- Noted as used within the slack, with the same life and owner: the indexes may be behind by as much, and still hold.
  if string.sub(head, 50, 64) == ARGV[8] and string.sub(head, 80, 101) == ARGV[10] then
    local age = now - (tonumber(string.sub(head, 19, 33)) or 0)
    if age >= 0 and age < tonumber(ARGV[4]) then seen = string.sub(head, 19, 33) end
  end
end
local expires = now + tonumber(ARGV[3])
if deadline > 0 and deadline < expires then expires = deadline end
if expires <= now then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[2])
  if ARGV[9] ~= '' then redis.call('ZREM', KEYS[3], ARGV[2]) end
  return {'gone'}
end
redis.call('SET', KEYS[1], table.concat({'CS1', created, seen or string.format('%015.0f', now), ARGV[7], ARGV[8],
  string.format('%015.0f', deadline), ARGV[10], ARGV[11]}), 'PX', expires - now)
if seen then return {'done'} end
local score = string.format('%.0f', expires + ARGV[4])
local life = expires + ARGV[4] - now
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], score, ARGV[2])
if redis.call('PTTL', KEYS[2]) < life then redis.call('PEXPIRE', KEYS[2], life) end
if ARGV[9] ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  redis.call('ZADD', KEYS[3], score, ARGV[2])
  if redis.call('PTTL', KEYS[3]) < life then redis.call('PEXPIRE', KEYS[3], life) end
end
return {'done'}
