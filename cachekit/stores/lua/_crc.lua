-- CRC-32 as zlib has it, four bits at a time; registers are whole numbers from 0. Sums cost less here than calls of bit.*.
-- crc_feed carries a register on over *bytes*; crc_shift returns what it becomes after *count* more bytes of zero: a
-- multiplication by x^(8 * count) modulo the polynomial, as in zlib's crc32_combine.
local function crc_feed(register, bytes)
  local nibbles = {
    [0] = 0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
    0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c}
  local bxor, byte = bit.bxor, string.byte
  for i = 1, #bytes do
    register = bxor(register, byte(bytes, i)) % 4294967296
    local low = register % 16
    register = bxor((register - low) / 16, nibbles[low]) % 4294967296
    low = register % 16
    register = bxor((register - low) / 16, nibbles[low]) % 4294967296
  end
  return register
end
local function crc_shift(register, count)
  local powers = {  -- x^8, x^16, x^32, ...: each the square of the one before
    0x00800000, 0x00008000, 0xedb88320, 0xb1e6b092, 0xa06a2517, 0xed627dae, 0x88d14467, 0xd7bbfe6a, 0xec447f11,
    0x8e7ea170, 0x6427800e, 0x4d47bae0, 0x09fe548f, 0x83852d0f, 0x30362f1a, 0x7b5a9cc3, 0x31fec169, 0x9fec022a,
    0x6c8dedc4, 0x15d6874d, 0x5fde7a4e, 0xbad90e37, 0x2e4e5eef, 0x4eaba214, 0xa8a472c0, 0x429a969e, 0x148d302a,
    0xc40ba6d0, 0xc4e22c3c}
  local bxor = bit.bxor
  local at = 1
  while count > 0 do
    local odd = count % 2
    if odd == 1 then
      local power, product = powers[at], 0
      while power > 0 do
        if power >= 2147483648 then
          product = bxor(product, register)
          power = power - 2147483648
        end
        power = power * 2
        local last = register % 2
        register = (register - last) / 2
        if last == 1 then register = bxor(register, 0xedb88320) % 4294967296 end
      end
      register = product % 4294967296
    end
    count = (count - odd) / 2
    at = at + 1
  end
  return register
end
