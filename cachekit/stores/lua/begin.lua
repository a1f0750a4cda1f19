-- Take the right to load a key, and read what its result will be compared with.
-- KEYS: value, lease, tag... (on a cluster the tags lie elsewhere)
-- ARGV: token, lease in ms, random bytes, life of a new tag in ms, "1" to take the lease from its holder,
--       "1" to have the end of another's lease announced
-- Returns {1 or 0, ms left of another's lease, value or "", microseconds, stamp...}
-- A lease holds 16 bytes of token; what follows them says that somebody waits for its end.
local leads = 1
local left = 0
if ARGV[5] == '1' then
  local holder = redis.call('GET', KEYS[2]) or ''
  redis.call('SET', KEYS[2], ARGV[1] .. string.sub(holder, 17), 'PX', ARGV[2])
elseif not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  local holder = redis.call('GET', KEYS[2])
  if string.sub(holder, 1, 16) ~= ARGV[1] then  -- else it is ours: the reply to the same request was lost
    leads = 0
    left = redis.call('PTTL', KEYS[2])
    if ARGV[6] == '1' and #holder == 16 then redis.call('SET', KEYS[2], holder .. 'w', 'KEEPTTL') end
  end
end
local time = redis.call('TIME')
local us = time[1] * 1000000 + time[2]
-- The time 0 of a new stamp says that it is no invalidation: whoever learns the tag from a result may keep the result.
local fresh = struct.pack('>I4I4', 0, 0) .. ARGV[3]
local reply = {leads, left, redis.call('GET', KEYS[1]) or '', string.format('%.0f', us)}
for i = 3, #KEYS do
  local stamp = redis.call('GET', KEYS[i])
  if not stamp then
    stamp = fresh
    redis.call('SET', KEYS[i], stamp, 'PX', ARGV[4])
  end
  reply[#reply + 1] = stamp
end
return reply
