"""How much may be asked twice: one budget for retries and hedges, and a share of all tokens for hedges."""

import time
from collections.abc import Callable


class RetryBudget:
    """A token bucket. Each request earns `share` of a retry, or `floor` retries a second if that is more.

    So in an outage no more than `1 + share` times the requests reach the servers, while a service with few
    requests may still retry them. It holds one second of the floor. After Finagle's RetryBudget, whose two
    parts are added up; here the greater one counts.
    """

    def __init__(self, share: float, floor: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._floor, self._clock = share, floor, clock
        self._left = floor
        self._at = clock()

    def earn(self) -> None:
        """A request came in."""
        self._add(self._share)

    def spend(self) -> bool:
        """Whether one more attempt may be made; counts it."""
        self._add(0.0)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _add(self, earned: float) -> None:
        now = self._clock()
        self._left += max(earned, self._floor * (now - self._at))
        self._left = min(self._left, max(self._floor, 1.0))
        self._at = now


class HedgeBudget:
    """Holds hedges to `share` of all tokens. Starts empty, saves up for `burst` requests."""

    def __init__(self, share: float, burst: int = 10) -> None:
        self._share, self._burst = share, burst
        self._left = 0.0

    def earn(self, tokens: float) -> None:
        """A request of so many tokens was sent."""
        self._left = min(self._left + self._share * tokens, self._burst * tokens)

    def spend(self, tokens: float) -> bool:
        """Whether a hedge of so many tokens may be made; counts it."""
        if self._left < tokens:
            return False
        self._left -= tokens
        return True
