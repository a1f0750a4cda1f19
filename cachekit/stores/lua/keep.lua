-- Keep a value with the stamps of its tags, if nothing it was made from was invalidated meanwhile.
-- KEYS: announcement, value, lease, tag...
-- ARGV: mode, proof, life in ms ("0": for ever), random bytes, microseconds at which the load began, channel, frame,
--       then per tag: its name, the stamp taken before the load, or with the value that it replaces ("": there is none)
-- mode "lease": proof is the token that must still hold the lease; announced only when somebody waits for its end
-- mode "force": no proof; running loads are voided
-- mode "swap":  proof is the value that must still be there ("" for none); running loads are voided
-- Returns the stamps that the value was kept with, 0 when it was not kept.
local mode = ARGV[1]
local held = redis.call('GET', KEYS[3]) or ''
if mode == 'lease' then
  if string.sub(held, 1, 16) ~= ARGV[2] then return 0 end
elseif mode == 'swap' then
  if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then return 0 end
end
local function refuse()
  if mode ~= 'lease' then return 0 end
  redis.call('DEL', KEYS[3])
  if #held > 16 then announce(KEYS[1], ARGV[6]) end
  return 0
end
local life = tonumber(ARGV[3])
local head = {'\202\001', struct.pack('>I2', #KEYS - 3)}
local stamps = {}
local kept = {}
for i = 4, #KEYS do
  local at = 8 + (i - 4) * 2
  local expected = ARGV[at + 1]
  local stamp = redis.call('GET', KEYS[i])
  if expected ~= '' then
    if stamp ~= expected then return refuse() end
  elseif stamp then
    if mode == 'lease' then
      local high, low = struct.unpack('>I4I4', stamp)
      if high * 4294967296 + low >= tonumber(ARGV[5]) then return refuse() end
    end
  else
    stamp = struct.pack('>I4I4', 0, 0) .. ARGV[4]  -- time 0: new, and no invalidation
    stamps[i] = stamp
  end
  kept[#kept + 1] = stamp
  head[#head + 1] = struct.pack('>I2', #ARGV[at]) .. ARGV[at] .. stamp
end
-- A tag lives longer than every entry that carries it.
for i = 4, #KEYS do
  if stamps[i] and life == 0 then
    redis.call('SET', KEYS[i], stamps[i])
  elseif stamps[i] then
    redis.call('SET', KEYS[i], stamps[i], 'PX', life + 60000)
  elseif life == 0 then
    redis.call('PERSIST', KEYS[i])
  else
    redis.call('PEXPIRE', KEYS[i], life + 60000, 'GT')
  end
end
local value = table.concat(head) .. ARGV[7]
if life == 0 then
  redis.call('SET', KEYS[2], value)
else
  redis.call('SET', KEYS[2], value, 'PX', ARGV[3])
end
redis.call('DEL', KEYS[3])
if mode ~= 'lease' or #held > 16 then announce(KEYS[1], ARGV[6]) end
return kept
