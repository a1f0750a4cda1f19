-- Tell the other processes. The key is the announcement: who tracks its prefix hears of it once, and nothing stays behind.
-- Those who cannot track subscribe, and receive the part behind the slot.
local function announce(key, channel)
  redis.call('SET', key, '')
  redis.call('DEL', key)
  redis.call('PUBLISH', channel, string.sub(key, string.find(key, '}', 1, true) + 1))
end

