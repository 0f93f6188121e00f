"""Windows that several processes and hosts share: one hash of slots per key and rate in a Redis server.

A script checks and counts all rates of a key in one step, by the server's clock: however many ask at once, no
more is let through than the limit, and the clocks of the hosts do not matter. What comes in while the server
is being asked is sent together, in one call.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from business_api.errors import Unavailable
from business_api.redis_script import SCRIPT
from business_api.windows import SLOTS, Allowance, Rate, Taken

BATCH = 100
"""Most operations in one call: it holds up the server for a few milliseconds."""


@dataclass(frozen=True)
class _Asked:
    """An operation on the server, as the script takes it. Nobody waits for the answer of a correction."""

    keys: list[str]
    numbers: list[str | int]
    answer: "asyncio.Future[bytes] | None"


class RedisWindows:
    """The windows at `url`. A call takes at most `deadline` seconds. `clock` None: the server's own."""

    def __init__(self, url: str, deadline: float, clock: Callable[[], float] | None = None) -> None:
        self._redis = Redis.from_url(
            url,
            # one timeout around a call is ours; another one around each read would double what a call costs
            socket_connect_timeout=None,
            socket_timeout=None,
            # a connection that the server closed while it was idle
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        self._script = self._redis.register_script(SCRIPT)
        self._deadline = deadline
        self._clock = clock
        self._waiting: list[_Asked] = []
        self._sending: asyncio.Task[None] | None = None
        self.apart: Mapping[str, int] = {}
        self.lost = 0

    async def take(self, key: str, rates: Sequence[Rate], amount: int) -> Taken:
        """Count `amount` units in every rate, or in none. Raises Unavailable when the server is away."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        numbers = [number for rate in rates for number in (rate.limit, rate.seconds)]
        self._ask(_Asked(_keys(key, rates), ["take", amount, len(rates), *numbers], answer))
        try:
            return _read(await asyncio.shield(answer), rates)
        except asyncio.CancelledError:
            # Whether it was counted is known when the server has answered.
            answer.add_done_callback(lambda done: self._undo(done, key, rates, amount))
            raise

    def correct(self, key: str, rates: Sequence[Rate], taken: Taken, by: int) -> None:
        """Count `by` units more or less, soon."""
        numbers = [n for rate, slot in zip(rates, taken.slots, strict=True) for n in (slot, rate.seconds)]
        self._ask(_Asked(_keys(key, rates), ["correct", by, len(rates), *numbers], None))

    async def settled(self) -> None:
        """Wait until every correction was made or lost."""
        while self._sending is not None:
            await asyncio.wait([self._sending])

    async def aclose(self) -> None:
        """Finish corrections, close the connection."""
        await self.settled()
        await self._redis.aclose()

    def _undo(self, answer: "asyncio.Future[bytes]", key: str, rates: Sequence[Rate], amount: int) -> None:
        if not answer.cancelled() and answer.exception() is None:
            taken = _read(answer.result(), rates)
            if taken.granted:
                self.correct(key, rates, taken, -amount)

    def _ask(self, asked: _Asked) -> None:
        self._waiting.append(asked)
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                await self._answer(batch)
        finally:
            self._sending = None

    async def _answer(self, batch: list[_Asked]) -> None:
        try:
            replies = await self._call(batch)
            for asked, reply in zip(batch, replies, strict=True):
                if asked.answer is not None:
                    asked.answer.set_result(reply)
        except (RedisError, OSError) as exc:  # a TimeoutError is an OSError
            for asked in batch:
                if asked.answer is None:
                    self.lost += 1
                else:
                    away = Unavailable("the limits of this key cannot be read right now")
                    away.__cause__ = exc
                    asked.answer.set_exception(away)
        finally:
            for asked in batch:
                if asked.answer is not None:
                    asked.answer.cancel()  # nobody waits for ever for what was not answered

    async def _call(self, batch: list[_Asked]) -> list[bytes]:
        now = "" if self._clock is None else repr(self._clock())
        keys = [key for asked in batch for key in asked.keys]
        numbers = [number for asked in batch for number in asked.numbers]
        async with asyncio.timeout(self._deadline):
            replies: list[bytes] = await self._script(keys=keys, args=[now, SLOTS, *numbers])
            return replies


def _keys(key: str, rates: Sequence[Rate]) -> list[str]:
    return [f"tandem:{key}:{rate.name}" for rate in rates]


def _read(reply: bytes, rates: Sequence[Rate]) -> Taken:
    """`fits wait`, then `slot used reset` per rate."""
    fits, wait, *found = reply.split()
    left = tuple(
        Allowance(rate.limit, max(rate.limit - int(used), 0), float(reset))
        for rate, used, reset in zip(rates, found[1::3], found[2::3], strict=True)
    )
    return Taken(fits == b"1", float(wait), tuple(map(int, found[::3])), left)
