-- Keep a session if it still is what the writer read. Times are those of the server.
-- KEYS: session (ends with its digest, the member of the indexes), index of live sessions, index of its owner (if
--       ARGV[6] is not empty)
-- ARGV: version that must be there ("": a new session), ttl in ms, slack in ms, created ("": now), deadline
--       (milliseconds since the epoch; of one made now: milliseconds from now; "0": none; only of new ones), owner
--       ("": nobody), value with zeros where the times that are decided here go
-- Returns {"done"}, {"gone"}, {"moved", note} or {"conflict", what is there}.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local member, value = string.sub(KEYS[1], -43), ARGV[7]
local created, deadline, seen = ARGV[4], tonumber(ARGV[5]), nil
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
  if string.sub(head, 50, 64) == string.sub(value, 50, 64) and string.sub(head, 80, 101) == string.sub(value, 80, 101) then
    local age = now - (tonumber(string.sub(head, 19, 33)) or 0)
    if age >= 0 and age < tonumber(ARGV[3]) then seen = string.sub(head, 19, 33) end
  end
end
local expires = now + tonumber(ARGV[2])
if deadline > 0 and deadline < expires then expires = deadline end
if expires <= now then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], member)
  if ARGV[6] ~= '' then redis.call('ZREM', KEYS[3], member) end
  return {'gone'}
end
redis.call('SET', KEYS[1], value, 'PX', expires - now)
redis.call('SETRANGE', KEYS[1], 3, created .. (seen or string.format('%015.0f', now)) .. string.sub(value, 34, 64)
  .. string.format('%015.0f', deadline))
if seen then return {'done'} end
local score = string.format('%.0f', expires + ARGV[3])
local life = expires + ARGV[3] - now
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], score, member)
if redis.call('PTTL', KEYS[2]) < life then redis.call('PEXPIRE', KEYS[2], life) end
if ARGV[6] ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  redis.call('ZADD', KEYS[3], score, member)
  if redis.call('PTTL', KEYS[3]) < life then redis.call('PEXPIRE', KEYS[3], life) end
end
return {'done'}
