"""Brings an answer to its first delta: which replica, when another one, when a second one beside it."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from business_api.deadlines import deadline_passed
from business_api.settings import LlmSettings
from business_api.upstream.asked import Asked
from business_api.upstream.budget import HedgeBudget, RetryBudget
from business_api.upstream.failing import UNREACHABLE, Failed
from business_api.upstream.pace import Pace
from business_api.upstream.pool import Pool
from business_api.upstream.race import Race
from business_api.upstream.replica import Replica
from business_api.upstream.stream import Stream

Sleep = Callable[[float], Awaitable[None]]


class Asking:
    """Attempts over a pool: the first one, retries, hedges. One budget holds for all."""

    def __init__(self, pool: Pool, settings: LlmSettings, sleep: Sleep = asyncio.sleep) -> None:
        self.pool, self._settings, self._sleep = pool, settings, sleep
        self.budget = RetryBudget(settings.retry_share, settings.retry_floor)
        self.hedges = HedgeBudget(settings.hedge_share)
        self.pace = Pace()

    async def begin(self, asked: Asked) -> Stream:
        """A stream whose first delta is there; the caller closes it. Raises ServiceError."""
        if asked.left <= 0:
            passed = deadline_passed()
            passed.attempts = tuple(asked.trail)
            raise passed
        self.budget.earn()
        self.hedges.earn(asked.prompt_tokens + asked.expected_tokens)
        replica = self.pool.first(asked)
        refused_by: list[tuple[Replica, str]] = []
        for number in range(self._settings.retries + 1):
            try:
                stream = await self._attempt(replica, asked)
                _blame(refused_by)
                return stream
            except Failed as failed:
                if failed.elsewhere and failed.strikes < UNREACHABLE:
                    refused_by.append((replica, failed.outcome))
                following = await self._after(failed, number, asked, replica)
                if following is None:
                    failed.error.attempts = tuple(asked.trail)
                    raise failed.error from failed
                replica = following
        raise AssertionError("the last attempt returns or raises")

    async def _after(self, failed: Failed, number: int, asked: Asked, replica: Replica) -> Replica | None:
        """Who is asked next, after a pause; None when nobody is."""
        asked.tried.add(replica)
        if asked.taken or not failed.again or number == self._settings.retries or _seen_before(failed, asked):
            return None
        other = self.pool.another(asked)
        if other is not None and replica.out is not None:
            return other  # its place on a dead replica is free: nothing is added to the load of the tier
        following = other
        if following is None and not failed.elsewhere:
            following = self.pool.again(asked) or self.pool.perhaps_back(asked)
        if following is None:
            return None
        pause = self._pause(failed, number, elsewhere=following not in asked.tried)
        if pause >= asked.left_here or pause > self._settings.longest_pause:
            return None
        if not self.budget.spend():
            return None
        await (self._sleep if asked.leaving is None else asked.leaving.pause)(pause)
        return None if asked.taken else following

    def _pause(self, failed: Failed, number: int, *, elsewhere: bool) -> float:
        """Seconds: none before another replica is asked, else back-off with full jitter, or Retry-After."""
        if elsewhere:
            return 0.0
        backoff = self._settings.backoff * float(2**number) * random.random()  # noqa: S311 - no secret
        return max(failed.retry_after or 0.0, backoff)

    async def _attempt(self, replica: Replica, asked: Asked) -> Stream:
        slow = self.pace.slow if self._settings.hedge else None
        if slow is None:
            stream = Stream(replica, asked, self._settings)
            await stream.begin()
        else:
            stream = await self._hedged(replica, asked, slow)
        self.pace.note(stream.ttft_ms / 1000)
        return stream

    async def _hedged(self, replica: Replica, asked: Asked, slow: float) -> Stream:
        """The attempt; when its first delta is late a second one elsewhere, and the first to begin wins."""
        race = Race(self._settings)
        other = None
        try:
            race.enter(replica, asked)
            if not await race.wait(slow) and (other := self._second(replica, asked)) is not None:
                race.enter(other, asked)
            return await race.won()
        except Failed:
            if other is not None:
                asked.tried.add(other)
            raise
        except BaseException:
            await race.annul()
            raise
        finally:
            race.call_off()

    def _second(self, replica: Replica, asked: Asked) -> Replica | None:
        asked.tried.add(replica)
        other = self.pool.another(asked)
        asked.tried.discard(replica)
        if other is None or other.busy:
            return None
        tokens = asked.prompt_tokens + asked.expected_tokens
        return other if self.hedges.spend(tokens) and self.budget.spend() else None


def _blame(refused_by: list[tuple[Replica, str]]) -> None:
    """Another server has answered what these refused: it was not the question.

    One that refuses everything in no time would seem the least burdened of all, and draw all questions.
    """
    for replica, outcome in refused_by:
        replica.failed(outcome, UNREACHABLE)


def _seen_before(failed: Failed, asked: Asked) -> bool:
    """A second 500: the prompt itself may be what kills servers, and is not carried on to a third one."""
    return failed.outcome == "status_500" and [a.outcome for a in asked.trail].count("status_500") > 1
