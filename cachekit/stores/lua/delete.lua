-- Drop values and void the loads of them that are running, and tell the other processes.
-- KEYS: value, lease, value, lease...
-- ARGV: channel, message
-- Returns how many values were there.
local found = 0
for i = 1, #KEYS, 2 do
  found = found + redis.call('DEL', KEYS[i])
  redis.call('DEL', KEYS[i + 1])
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return found
