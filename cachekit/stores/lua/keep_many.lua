-- Keep several values that carry the same tags, by force: loads of them that are running are voided.
-- KEYS: announcement, tag..., then per value: its name, its lease
-- ARGV: number of tags, random bytes, longest life in ms ("0": one lives for ever), channel, the name of each tag,
--       then per value: its life in ms ("0": for ever), its frame
local tags, longest = tonumber(ARGV[1]), tonumber(ARGV[3])
local head = {'\202\001', struct.pack('>I2', tags)}
for i = 1, tags do
  local key, name = KEYS[1 + i], ARGV[4 + i]
  local stamp = redis.call('GET', key)
  if not stamp then
    stamp = struct.pack('>I4I4', 0, 0) .. ARGV[2]  -- time 0: new, and no invalidation
    if longest == 0 then
      redis.call('SET', key, stamp)
    else
      redis.call('SET', key, stamp, 'PX', longest + 60000)
    end
  elseif longest == 0 then
    redis.call('PERSIST', key)
  else
    redis.call('PEXPIRE', key, longest + 60000, 'GT')  -- a tag lives longer than every entry that carries it
  end
  head[#head + 1] = struct.pack('>I2', #name) .. name .. stamp
end
head = table.concat(head)
local at = 5 + tags
for i = 2 + tags, #KEYS, 2 do
  if ARGV[at] == '0' then
    redis.call('SET', KEYS[i], head .. ARGV[at + 1])
  else
    redis.call('SET', KEYS[i], head .. ARGV[at + 1], 'PX', ARGV[at])
  end
  redis.call('DEL', KEYS[i + 1])
  at = at + 2
end
announce(KEYS[1], ARGV[4])
return 1
