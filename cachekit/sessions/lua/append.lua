-- Add to a session that still is what the writer read. Times are those of the server.
-- KEYS: session (cachekit:s:{3f}:<digest>; the indexes, cachekit:sl:{3f} and cachekit:su:{3f}:<owner>, lie in the same slot)
-- ARGV: version that must be there, version that it becomes, slack in ms, what to add
-- Returns 1, {"gone"}, {"moved", note} or {"conflict", what is there}.
-- What is small is put together here and written by one command: each command of a script costs more than a few KB do.
local small = 4096
local value = redis.call('GETRANGE', KEYS[1], 0, small - 1)
if value == '' then return {'gone'} end
if string.sub(value, 1, 3) == 'CM1' then return {'moved', redis.call('GET', KEYS[1])} end
local ttl, deadline = tonumber(string.sub(value, 50, 64)), tonumber(string.sub(value, 65, 79))
if string.sub(value, 34, 49) ~= ARGV[1] or not ttl or not deadline then
  return {'conflict', redis.call('GET', KEYS[1])}
end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local expires = now + ttl
if deadline > 0 and deadline < expires then expires = deadline end
-- Noted as used within the slack: the indexes may be behind by as much, and still hold.
local seen = string.sub(value, 19, 33)
local age = now - (tonumber(seen) or 0)
local noted = age >= 0 and age < tonumber(ARGV[3])
local member, live, owner
if not noted or expires <= now then
  local start, shard = string.match(KEYS[1], '^(.*):s:(%b{}):')
  owner = string.sub(value, 80, 101)
  owner = string.find(owner, '[^-]') and start .. ':su:' .. shard .. ':' .. owner or nil
  member, live = string.sub(KEYS[1], -43), start .. ':sl:' .. shard
end
if expires <= now then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', live, member)
  if owner then redis.call('ZREM', owner, member) end
  return {'gone'}
end
if not noted then seen = string.format('%015.0f', now) end
if #value < small then
  value = string.sub(value, 1, 18) .. seen .. ARGV[2] .. string.sub(value, 50) .. ARGV[4]
  redis.call('SET', KEYS[1], value, 'PX', expires - now)
else
  redis.call('APPEND', KEYS[1], ARGV[4])
  redis.call('SETRANGE', KEYS[1], 18, seen .. ARGV[2])
  -- APPEND leaves as much room again behind the value; a copy has none.
  local copy = KEYS[1] .. ':copy'
  redis.call('COPY', KEYS[1], copy, 'REPLACE')
  redis.call('RENAME', copy, KEYS[1])
  redis.call('PEXPIRE', KEYS[1], expires - now)
end
if noted then return 1 end
local score, life = string.format('%.0f', expires + ARGV[3]), expires + ARGV[3] - now
for _, index in ipairs({live, owner}) do
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now)
  redis.call('ZADD', index, score, member)
  if redis.call('PTTL', index) < life then redis.call('PEXPIRE', index, life) end
end
return 1
