"""How long first deltas take on this pool, by the last ones."""

from collections import deque

FEWEST = 20
"""So many first deltas before anything is said of them."""
ANEW = 16
"""The quantile is worked out anew after so many."""


class Pace:
    """Times to the first delta, in seconds: the last `window` ones."""

    def __init__(self, window: int = 256) -> None:
        self._times: deque[float] = deque(maxlen=window)
        self._noted = 0
        self.slow: float | None = None
        """The 95th percentile; None while too few are known."""

    def note(self, seconds: float) -> None:
        """A first delta came after so long."""
        self._times.append(seconds)
        self._noted += 1
        if self._noted >= FEWEST and (self._noted - FEWEST) % ANEW == 0:
            ranked = sorted(self._times)
            self.slow = ranked[int(0.95 * (len(ranked) - 1) + 0.5)]
