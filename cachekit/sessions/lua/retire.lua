-- End a session whose id has changed, and leave a note of where it is.
-- KEYS: session, index of live sessions, index of its owner (if ARGV[3] is not empty)
-- ARGV: version that must be there, member, owner ("": nobody), grace in ms, note
-- Returns {"done"}, {"gone"}, {"moved", note} or {"conflict", what is there}.
local head = redis.call('GETRANGE', KEYS[1], 0, 48)
if head == '' then return {'gone'} end
if string.sub(head, 1, 3) == 'CM1' then return {'moved', redis.call('GET', KEYS[1])} end
if string.sub(head, 34, 49) ~= ARGV[1] then return {'conflict', redis.call('GET', KEYS[1])} end
if tonumber(ARGV[4]) > 0 then
  redis.call('SET', KEYS[1], ARGV[5], 'PX', ARGV[4])
else
  redis.call('DEL', KEYS[1])
end
redis.call('ZREM', KEYS[2], ARGV[2])
if ARGV[3] ~= '' then redis.call('ZREM', KEYS[3], ARGV[2]) end
return {'done'}
