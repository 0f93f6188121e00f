"""Whether answers under way are said as fast as they should be, and how many at once would be.

A server that batches says each token later the more answers it works at. The bound on milliseconds per token
is kept as long as it does not cost more than half of all tokens per second: a server that cannot keep it with
half of its work will not keep it.
"""

import statistics
from typing import NamedTuple

ROUND = 16
"""Answers of a round; each round ends in one decision."""
FADE = 0.999
"""What is left of the best rate after a round: what a server could do once it may not be able to do now."""
FEWEST = 8
"""Tokens of an answer that says something of the pace."""
NEAR = 0.9
"""Share of the bound from which on no more answers are let through at once."""
SHARPEST_CUT = 0.5
WORTH = 0.5
"""Share of the best rate that must be left."""


class Answered(NamedTuple):
    """An answer that has ended: when it was begun (s), ms per token behind the first one."""

    began: float
    ms_per_token: float


def ms_per_token(after_first_ms: float, tokens: int) -> float | None:
    """How far apart tokens are that took so long behind the first one; None when they are too few to tell."""
    return after_first_ms / (tokens - 1) if tokens >= FEWEST else None


class TokenPace:
    """Learns from whole answers. `full` says that no more should run at once."""

    def __init__(self, bound_ms: float) -> None:
        self._bound_ms = bound_ms
        self._paces: list[float] = []
        self._best_rate = 0.0
        self._changed = float("-inf")
        self.full = False

    def observe(self, answered: Answered, now: float, in_flight: int) -> float | None:
        """The share to which what is in flight should fall, None if it may stay."""
        if answered.began < self._changed:
            return None
        self._paces.append(answered.ms_per_token)
        if len(self._paces) < ROUND:
            return None
        pace = statistics.median(self._paces)
        self._paces.clear()
        return self._decide(pace, in_flight / pace, now)

    def _decide(self, pace: float, rate: float, now: float) -> float | None:
        self._best_rate = max(self._best_rate * FADE, rate)
        worth = rate > WORTH * self._best_rate
        self.full = worth and pace > NEAR * self._bound_ms
        if pace <= self._bound_ms or not worth:
            return None
        self._changed = now
        return max(self._bound_ms / pace, SHARPEST_CUT, WORTH * self._best_rate / rate)
