"""Windows that several processes and hosts share: one hash of slots per key and rate in a Redis server.

One script checks and counts all rates of a key in one step, by the server's clock: however many ask at once,
no more is let through than the limit, and the clocks of the hosts do not matter.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from business_api.errors import Unavailable
from business_api.windows import SLOTS, Allowance, Rate, Taken

T = TypeVar("T")
log = logging.getLogger(__name__)

CONNECTIONS = 32
_NOW = """
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = time[1] + time[2] / 1000000
end
local amount, slots = tonumber(ARGV[2]), tonumber(ARGV[3])
local function add(key, slot, units, seconds)
    redis.call('HINCRBY', key, string.format('%d', slot), units)
    redis.call('EXPIRE', key, math.ceil(seconds * (slots + 2) / slots))
end
"""
_TAKE = (
    _NOW
    + """
local windows, fits = {}, 1
for i, key in ipairs(KEYS) do
    local limit, seconds = tonumber(ARGV[2 * i + 2]), tonumber(ARGV[2 * i + 3])
    local width = seconds / slots
    local window = {current = math.floor(now / width), width = width, seconds = seconds, used = 0, wait = 0}
    local spent, fields = {}, redis.call('HGETALL', key)
    for f = 1, #fields, 2 do
        local slot, units = tonumber(fields[f]), tonumber(fields[f + 1])
        if slot < window.current - slots or units == 0 then
            redis.call('HDEL', key, fields[f])
        else
            table.insert(spent, {slot = slot, units = units})
            window.used = window.used + units
            window.last = math.max(window.last or slot, slot)
        end
    end
    local over = window.used + amount - limit
    if over > 0 then
        fits = 0
        table.sort(spent, function(a, b) return a.slot < b.slot end)
        for _, one in ipairs(spent) do
            if over > 0 then
                over = over - one.units
                window.wait = (one.slot + slots + 1) * width - now
            end
        end
    end
    windows[i] = window
end
local reply = {fits}
for i, window in ipairs(windows) do
    if fits == 1 and amount > 0 then
        add(KEYS[i], window.current, amount, window.seconds)
        window.used, window.last = window.used + amount, window.current
    end
    local reset = window.last and (window.last + slots + 1) * window.width - now or 0
    table.insert(reply, {window.current, window.used, tostring(window.wait), tostring(reset)})
end
return reply
"""
)
_CORRECT = (
    _NOW
    + """
for i, key in ipairs(KEYS) do
    local slot, seconds = ARGV[2 * i + 2], tonumber(ARGV[2 * i + 3])
    if amount > 0 then
        add(key, math.floor(now * slots / seconds), amount, seconds)
    else
        local held = tonumber(redis.call('HGET', key, slot) or 0)
        if held > 0 then
            redis.call('HINCRBY', key, slot, -math.min(held, -amount))
        end
    end
end
"""
)


class RedisWindows:
    """The windows at `url`. A call takes at most `deadline` seconds. `clock` None: the server's own."""

    def __init__(self, url: str, deadline: float, clock: Callable[[], float] | None = None) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=None,
            # one timeout around a call is ours; another one around each read would double what a call costs
            socket_connect_timeout=None,
            socket_timeout=None,
            # a connection that the server closed while it was idle
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        self._redis = Redis.from_pool(pool)
        self._take = self._redis.register_script(_TAKE)
        self._correct = self._redis.register_script(_CORRECT)
        self._deadline = deadline
        self._clock = clock
        self._running: set[asyncio.Task[Any]] = set()
        self.apart: Mapping[str, int] = {}
        self.lost = 0

    async def take(self, key: str, rates: Sequence[Rate], amount: int) -> Taken:
        """Count `amount` units in every rate, or in none. Raises Unavailable when the server is away."""
        taking = self._soon(self._taken(key, rates, amount))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            # Whether it was counted is known when the server has answered.
            taking.add_done_callback(lambda done: self._undo(done, key, rates, amount))
            raise

    async def _taken(self, key: str, rates: Sequence[Rate], amount: int) -> Taken:
        numbers = [number for rate in rates for number in (rate.limit, rate.seconds)]
        fits, *found = await self._run(self._take, key, rates, amount, numbers)
        left = tuple(
            Allowance(rate.limit, max(rate.limit - used, 0), float(reset))
            for rate, (_, used, _, reset) in zip(rates, found, strict=True)
        )
        wait = max(float(one[2]) for one in found)
        return Taken(fits == 1, wait, tuple(one[0] for one in found), left)

    def correct(self, key: str, rates: Sequence[Rate], taken: Taken, by: int) -> None:
        """Count `by` units more or less, soon."""
        self._soon(self._corrected(key, rates, taken, by))

    async def settled(self) -> None:
        """Wait until every correction was made or lost."""
        while self._running:
            await asyncio.wait(self._running)

    async def aclose(self) -> None:
        """Finish corrections, close connections."""
        await self.settled()
        await self._redis.aclose()

    def _soon(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _undo(self, taking: "asyncio.Task[Taken]", key: str, rates: Sequence[Rate], amount: int) -> None:
        if not taking.cancelled() and taking.exception() is None and taking.result().granted:
            self.correct(key, rates, taking.result(), -amount)

    async def _corrected(self, key: str, rates: Sequence[Rate], taken: Taken, by: int) -> None:
        numbers = [n for rate, slot in zip(rates, taken.slots, strict=True) for n in (slot, rate.seconds)]
        try:
            await self._run(self._correct, key, rates, by, numbers)
        except Unavailable:
            self.lost += 1

    async def _run(
        self, script: Any, key: str, rates: Sequence[Rate], amount: int, numbers: list[int]
    ) -> Any:
        # braces: a cluster keeps the windows of one key together
        keys = [f"tandem:{{{key}}}:{rate.name}" for rate in rates]
        now = "" if self._clock is None else repr(self._clock())
        try:
            async with asyncio.timeout(self._deadline):
                return await script(keys=keys, args=[now, amount, SLOTS, *numbers])
        except (RedisError, OSError) as exc:  # a TimeoutError is an OSError
            log.debug("the limits at Redis: %s", exc)
            raise Unavailable("the limits of this key cannot be read right now") from exc
