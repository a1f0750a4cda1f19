-- List or end the sessions of one owner.
-- KEYS: index of the owner, index of live sessions
-- ARGV: what their keys begin with, bytes to return of each (0: end them), only this member ("": all), not this member
-- The keys of the sessions have the same hash tag as KEYS, so that all lie in one slot.
-- Returns {member, head, member, head...}, or the number of sessions that were ended.
local now = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now[1] * 1000 + math.floor(now[2] / 1000))
local bytes = tonumber(ARGV[2])
local found, ended = {}, 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if (ARGV[3] == '' or member == ARGV[3]) and member ~= ARGV[4] then
    local key = ARGV[1] .. member
    local head = redis.call('GETRANGE', key, 0, math.max(bytes, 3) - 1)
    if string.sub(head, 1, 3) ~= 'CS1' then
      redis.call('ZREM', KEYS[1], member)
      redis.call('ZREM', KEYS[2], member)
    elseif bytes == 0 then
      ended = ended + redis.call('DEL', key)
      redis.call('ZREM', KEYS[1], member)
      redis.call('ZREM', KEYS[2], member)
    else
      found[#found + 1] = member
      found[#found + 1] = head
    end
  end
end
if bytes == 0 then return ended end
return found
