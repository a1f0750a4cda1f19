#!lua flags=allow-oom
-- Drop values and void the loads of them that are running, and tell the other processes.
-- KEYS: announcement, value, lease, value, lease...
-- ARGV: channel
-- Returns how many values were there.
local found = 0
for i = 2, #KEYS, 2 do
  found = found + redis.call('DEL', KEYS[i])
  redis.call('DEL', KEYS[i + 1])
end
announce(KEYS[1], ARGV[1])
return found
