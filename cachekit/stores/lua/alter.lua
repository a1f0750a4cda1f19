-- Change a value where it lies. Its stamps stay as they are, so what was invalidated is never brought back.
-- KEYS: announcement, value, lease, then the tags; none of those on a cluster, where the caller compares the stamps
-- ARGV: "touch" or "add", channel, the time,
--       touch: the four times (32 bytes), the life in ms ("0": for ever), the register of those bytes fed to 0;
--       add: what is added, the id of the codec, "";
--       then the name of each tag
-- Running loads of the key are voided, as by any change.
-- Returns {1, the sum, what was there: all of it for add, the bytes in front of the frame for touch}; {0} where there is no
-- fresh value; {-1} where the caller has to look himself: other tags, other stamps, no whole number, a protected frame.
-- A damaged frame stays damaged: whether it was is for the caller to say, who computes checksums quicker.
local value = redis.call('GET', KEYS[2])
if not value then return {0} end
if string.sub(value, 1, 4) ~= '\202\001' .. struct.pack('>I2', #ARGV - 6) then return {-1} end
local at = 5
for i = 7, #ARGV do
  local name = struct.pack('>I2', #ARGV[i]) .. ARGV[i]
  if string.sub(value, at, at + #name - 1) ~= name then return {-1} end
  at = at + #name
  if #KEYS > 3 and redis.call('GET', KEYS[i - 3]) ~= string.sub(value, at, at + 15) then return {-1} end
  at = at + 16
end
-- The frame: magic, version, flags, codec, length of meta, checksum; then meta, which begins with the times.
if string.sub(value, at, at + 2) ~= '\254K\001' or #value < at + 52 then return {-1} end
local size, checksum = struct.unpack('>I4I4', value, at + 5)
if size ~= 40 and size ~= 48 then return {-1} end
local created, fresh = struct.unpack('>dd', value, at + 13)
local now = tonumber(ARGV[3])
if created - 300 > now or now >= fresh then return {0} end
local front, body = string.sub(value, at, at + 8), string.sub(value, at + 13)
local total = 0
if ARGV[1] == 'touch' then
  -- Sums of bytes and of their differences differ by the same: the value behind the times need not be looked at.
  local register = bit.bxor(crc_feed(0, string.sub(body, 1, 32)), tonumber(ARGV[6])) % 4294967296
  checksum = bit.bxor(checksum, crc_shift(register, #body - 32))
  body = ARGV[4] .. string.sub(body, 33)
else
  local payload = string.sub(body, size + 1)
  local kind = string.byte(payload) or 192
  local length = 1
  if kind >= 204 and kind <= 211 then length = 1 + 2 ^ (kind % 4) elseif kind >= 128 and kind < 224 then return {-1} end
  if #payload ~= length or string.sub(front, 4) ~= struct.pack('>BBI4', 0, tonumber(ARGV[5]), size) then return {-1} end
  local number = cmsgpack.unpack(payload)
  total = number + tonumber(ARGV[4])
  local exact = 9007199254740992
  if math.abs(number) >= exact or math.abs(total) >= exact then return {-1} end
  local packed = cmsgpack.pack(total)
  if #packed == #payload then
    checksum = bit.bxor(checksum, crc_feed(0, payload), crc_feed(0, packed))
  else
    if bit.bxor(crc_feed(4294967295, front .. body), checksum) ~= -1 then return {-1} end
    checksum = bit.bnot(crc_feed(4294967295, front .. string.sub(body, 1, size) .. packed))
  end
  body = string.sub(body, 1, size) .. packed
end
local before = value
value = string.sub(value, 1, at - 1) .. front .. struct.pack('>I4', checksum % 4294967296) .. body
if ARGV[1] == 'add' then
  redis.call('SET', KEYS[2], value, 'KEEPTTL')
elseif ARGV[5] == '0' then
  redis.call('SET', KEYS[2], value)
  for i = 4, #KEYS do redis.call('PERSIST', KEYS[i]) end
else
  redis.call('SET', KEYS[2], value, 'PX', ARGV[5])
  for i = 4, #KEYS do redis.call('PEXPIRE', KEYS[i], tonumber(ARGV[5]) + 60000, 'GT') end  -- a tag outlives its entries
end
redis.call('DEL', KEYS[3])
announce(KEYS[1], ARGV[2])
return {1, total, ARGV[1] == 'add' and before or string.sub(before, 1, at - 1)}
