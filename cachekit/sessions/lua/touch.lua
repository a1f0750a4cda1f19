-- Note that a session is used: its last use, its life, its places in the indexes.
-- KEYS: session, index of live sessions
-- ARGV: member, ttl in ms, slack in ms, what the indexes of owners begin with (in the same slot as KEYS)
-- Returns 1, or 0 when the session has ended.
local head = redis.call('GETRANGE', KEYS[1], 0, 100)
if string.sub(head, 1, 3) ~= 'CS1' then return 0 end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local expires = now + tonumber(ARGV[2])
local deadline, owner = tonumber(string.sub(head, 65, 79)), string.sub(head, 80, 101)
if not deadline then return 0 end
owner = string.find(owner, '[^-]') and ARGV[4] .. owner or nil
if deadline > 0 and deadline < expires then expires = deadline end
if expires <= now then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  if owner then redis.call('ZREM', owner, ARGV[1]) end
  return 0
end
redis.call('SETRANGE', KEYS[1], 18, string.format('%015.0f', now))
redis.call('PEXPIRE', KEYS[1], expires - now)
local score = string.format('%.0f', expires + ARGV[3])
local life = expires + ARGV[3] - now
for _, index in ipairs({KEYS[2], owner}) do
  redis.call('ZADD', index, score, ARGV[1])
  if redis.call('PTTL', index) < life then redis.call('PEXPIRE', index, life) end
end
return 1
