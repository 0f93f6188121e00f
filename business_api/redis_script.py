"""What a Redis server does to count: the windows of `windows`, in its own language.

KEYS are hashes of slot -> units, in the order of the operations. ARGV: the time in seconds ("": the server's
own), slots in a window, then for each operation `take` with amount, number of rates, and limit and seconds of
each, or `correct` with units, number of rates, and slot and seconds of each. One reply for each operation.
"""

SCRIPT = """
local now, slots = tonumber(ARGV[1]), tonumber(ARGV[2])
if not now then
    local time = redis.call('TIME')
    now = time[1] + time[2] / 1000000
end

local function add(key, slot, units, seconds)
    redis.call('HINCRBY', key, string.format('%d', slot), units)
    redis.call('EXPIRE', key, math.ceil(seconds * (slots + 2) / slots))
end

local function give_back(key, slot, units)
    local held = tonumber(redis.call('HGET', key, slot) or 0)
    if units < held then
        redis.call('HINCRBY', key, slot, -units)
    elseif held > 0 then
        redis.call('HDEL', key, slot)
    end
end

local function window_of(key, limit, seconds)
    local window = {limit = limit, seconds = seconds, width = seconds / slots, used = 0, spent = {}}
    window.current = math.floor(now / window.width)
    local fields = redis.call('HGETALL', key)
    for f = 1, #fields, 2 do
        local slot, units = tonumber(fields[f]), tonumber(fields[f + 1])
        if slot < window.current - slots then
            redis.call('HDEL', key, fields[f])
        else
            table.insert(window.spent, {slot = slot, units = units})
            window.used = window.used + units
            window.last = math.max(window.last or slot, slot)
        end
    end
    return window
end

local function until_gone(window, slot)
    return (slot + slots + 1) * window.width - now
end

local function wait(window, over)
    table.sort(window.spent, function(a, b) return a.slot < b.slot end)
    for _, one in ipairs(window.spent) do
        over = over - one.units
        if over <= 0 then
            return until_gone(window, one.slot)
        end
    end
end

local function take(keys, amount, limits, spans)
    local windows, longest = {}, 0
    for i, key in ipairs(keys) do
        local window = window_of(key, limits[i], spans[i])
        local over = window.used + amount - window.limit
        if over > 0 then
            longest = math.max(longest, wait(window, over))
        end
        windows[i] = window
    end
    local reply = {longest == 0 and '1' or '0', tostring(longest)}
    for i, window in ipairs(windows) do
        if longest == 0 and amount > 0 then
            add(keys[i], window.current, amount, window.seconds)
            window.used, window.last = window.used + amount, window.current
        end
        local reset = window.last and until_gone(window, window.last) or 0
        table.insert(reply, string.format('%d %d', window.current, window.used))
        table.insert(reply, tostring(reset))
    end
    return table.concat(reply, ' ')
end

local function correct(keys, units, counted, spans)
    for i, key in ipairs(keys) do
        if units > 0 then
            add(key, math.floor(now * slots / spans[i]), units, spans[i])
        else
            give_back(key, counted[i], -units)
        end
    end
    return ''
end

local replies, at, from = {}, 3, 0
while at <= #ARGV do
    local work = ARGV[at] == 'take' and take or correct
    local amount, rates = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local keys, firsts, spans = {}, {}, {}
    for i = 1, rates do
        keys[i] = KEYS[from + i]
        firsts[i], spans[i] = tonumber(ARGV[at + 1 + 2 * i]), tonumber(ARGV[at + 2 + 2 * i])
    end
    table.insert(replies, work(keys, amount, firsts, spans))
    at, from = at + 3 + 2 * rates, from + rates
end
return replies
"""
