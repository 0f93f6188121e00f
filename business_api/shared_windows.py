"""Windows that processes share, and what a process does while they are away."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from business_api.errors import Unavailable
from business_api.settings import GuardSettings
from business_api.windows import MemoryWindows, Rate, Taken, Windows

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
"""How long windows that are away are left alone before one request tries them again."""
WhenAway = Literal["local", "allow", "refuse"]
_DONE: Mapping[WhenAway, str] = {
    "local": "each process limits by itself",
    "allow": "nothing is limited",
    "refuse": "requests are refused",
}


class SharedWindows:
    """The `shared` windows; while they are away, this process's `own`, or none, or a refusal."""

    def __init__(
        self, shared: Windows, own: Windows, when_away: WhenAway, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shared = shared
        self._own = own
        self._when_away = when_away
        self._clock = clock
        self._again_at: float | None = None
        self.apart: Counter[str] = Counter()

    async def take(self, key: str, rates: Sequence[Rate], amount: int) -> Taken:
        """Count `amount` units in every rate, or in none. Raises Unavailable if that is what is done."""
        if self._worth_trying():
            try:
                taken = await self._shared.take(key, rates, amount)
            except Unavailable as exc:
                self._away(exc)
            else:
                self._back()
                return taken
        self.apart[self._when_away] += 1
        if self._when_away == "refuse":
            raise Unavailable("the limits of this key cannot be read right now", retry_after=AGAIN_SECONDS)
        if self._when_away == "allow":
            return Taken(granted=True, wait=0.0, slots=(), left=())
        return msgspec.structs.replace(await self._own.take(key, rates, amount), apart=True)

    def correct(self, key: str, rates: Sequence[Rate], taken: Taken, by: int) -> None:
        """Count `by` units more or less where they were counted."""
        (self._own if taken.apart else self._shared).correct(key, rates, taken, by)

    @property
    def lost(self) -> int:
        """Corrections that the shared windows never saw."""
        return self._shared.lost

    async def settled(self) -> None:
        """Wait until every correction was made or lost."""
        await self._shared.settled()

    async def aclose(self) -> None:
        """Finish corrections, close connections."""
        await self._shared.aclose()

    def _worth_trying(self) -> bool:
        """While they are away: once in a while, for the one request that asks first."""
        if self._again_at is None:
            return True
        now = self._clock()
        if now < self._again_at:
            return False
        self._again_at = now + AGAIN_SECONDS
        return True

    def _away(self, exc: Unavailable) -> None:
        if self._again_at is None:
            log.warning("the shared limits are away (%s): %s", exc.__cause__, _DONE[self._when_away])
        self._again_at = self._clock() + AGAIN_SECONDS

    def _back(self) -> None:
        if self._again_at is not None:
            log.warning("the shared limits are back")
        self._again_at = None


def open_windows(settings: GuardSettings, clock: Callable[[], float] = time.monotonic) -> Windows:
    """The windows that the settings ask for; nothing is connected yet. Raises ValueError for a wrong URL."""
    own = MemoryWindows(clock)
    if settings.limits_url is None:
        return own
    from business_api.redis_windows import RedisWindows

    try:
        shared = RedisWindows(settings.limits_url.get_secret_value(), settings.limits_deadline)
    except ValueError as exc:
        raise ValueError(f"BUSINESS_API_GUARD__LIMITS_URL cannot be used: {exc}") from exc
    return SharedWindows(shared, own, settings.when_limits_away, clock)
