-- The ledgers of some keys' limits: what all workers have admitted together. Two rules: GCRA (gateway/runtime/gcra.py is the model), and
-- that no period sees more than 3 % above the limit. Run by gateway/admission/limits.py; of a Cluster with one key, since each has its slot.
--
-- KEYS[i]  string: "<tat, ms> <number of a slot>:<units> <number of a slot>:<units>…". One string and not a hash: all are read at once
-- ARGV     for each key: units that were admitted already; units asked for; the weight of one request among those asked for;
--          the limit: units, period (ms). Then: slots in one period; now (ms; "" for Redis's own clock)
-- returns  for each key: units granted of those asked for; ms until the arrival time; units left in the window;
--          ms until the window's oldest units leave it (0 when nothing was denied)

local slots, now = tonumber(ARGV[#ARGV - 1]), tonumber(ARGV[#ARGV])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end

local function settled(name, kept, spent, want, each, units, period)
  -- A unit counts until the whole of its slot is a period old.
  local interval, slot_ms, kept_slots = period / units, period / slots, slots + 1
  local slot, cap = math.floor(now / slot_ms), math.floor(units * 1.03)
  local tat, used, here, oldest = now, 0, 0, slot
  local lived = {}
  local ahead = tonumber(string.match(kept, '^%S+'))
  -- Further ahead than anything written below: this clock was set back since. What it kept then holds nobody up now.
  if ahead and ahead <= now + 1.5 * period then
    tat = math.max(ahead, now)
  end
  for number, value in string.gmatch(kept, '(%d+):(-?%d+)') do
    local count = tonumber(value)
    number = tonumber(number)
    if slot - number < kept_slots and number - slot < kept_slots then
      used = used + count
      oldest = math.min(oldest, number)
      if number == slot then
        here = count
      else
        lived[#lived + 1] = string.format('%.0f:%s', number, value)
      end
    end
  end

  -- What was admitted was admitted. After an outage that may be far above the limit; it is not held against the key for ever.
  -- Less than nothing, when more was given back than was admitted.
  tat = math.max(now, math.min(tat + spent * interval, math.max(tat, now + 1.5 * period)))
  used = used + spent

  local free = math.max(0, math.min(math.floor((period - (tat - now)) / interval + 1e-6), cap - used))
  local granted = want
  if want > free then
    granted = free - free % math.max(1, each)
  end
  tat = tat + granted * interval
  used = used + granted

  if spent + granted ~= 0 then
    lived[#lived + 1] = string.format('%.0f:%.0f', slot, here + spent + granted)
    local ttl_ms = math.ceil(math.max(tat - now, kept_slots * slot_ms))
    kept = string.format('%.17g', tat) .. ' ' .. table.concat(lived, ' ')
    redis.call('SET', name, kept, 'PX', ttl_ms)
  end

  local closed_ms = 0
  if used >= cap or granted < want then
    closed_ms = (oldest + kept_slots) * slot_ms - now
  end
  return kept, {granted, string.format('%.17g', tat - now), cap - used, string.format('%.17g', closed_ms)}
end

local held, answers = {}, {}
for number, value in ipairs(redis.call('MGET', unpack(KEYS))) do
  held[KEYS[number]] = value or ''
end
for number, name in ipairs(KEYS) do
  local bill = {}
  for part = 1, 5 do
    bill[part] = tonumber(ARGV[5 * (number - 1) + part])
  end
  held[name], answers[number] = settled(name, held[name], unpack(bill))
end
return answers
