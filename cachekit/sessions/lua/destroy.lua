-- End a session.
-- KEYS: session, index of live sessions, index of its owner (if ARGV[2] is not empty)
-- ARGV: member, owner ("": nobody)
-- Returns {"done"}, {"gone"} or {"moved", note}.
local head = redis.call('GETRANGE', KEYS[1], 0, 2)
if head == 'CM1' then return {'moved', redis.call('GET', KEYS[1])} end
redis.call('ZREM', KEYS[2], ARGV[1])
if ARGV[2] ~= '' then redis.call('ZREM', KEYS[3], ARGV[1]) end
if redis.call('DEL', KEYS[1]) == 0 then return {'gone'} end
return {'done'}
