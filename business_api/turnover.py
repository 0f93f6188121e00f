"""How fast places at the LLM tier become free, and how to keep them from becoming free all at once."""

from collections import deque

MEMORY = 64
"""Generations whose time in flight makes the mean."""
LATELY = 8
"""Latest of them, which tell that the mean is of another time: of long answers, or of servers that hung."""
SPACING = 0.9
"""Starts follow each other by so much of the time in which one place becomes free: closer, so that no place
stays empty because the time was measured long."""
BURST = 0.125
"""Share of the places that may start at once all the same."""
SCARCE = 2.0
"""Times in flight for which places count as scarce after somebody found none."""


class Turnover:
    """The mean time that a place is held, `hold` (s), of requests that cost `cost` tokens in the mean.

    By Little's law, places in use over that time become free in a second.
    """

    def __init__(self) -> None:
        self.hold: float | None = None
        self.cost = 1.0
        self._seen = 0
        self._latest: deque[float] = deque(maxlen=LATELY)
        self._stirred = float("-inf")

    def stirred(self, now: float) -> None:
        """Places have just run out: from now on some must end, or the turnover is lower than it seems."""
        self._stirred = now

    def ended(self, cost: float, hold: float, now: float) -> None:
        """A place of this cost (tokens) was held so long (s)."""
        self._seen += 1
        self._latest.append(hold)
        self._stirred = now
        weight = 1 / min(self._seen, MEMORY)
        self.hold = hold if self.hold is None else self.hold + weight * (hold - self.hold)
        self.cost += weight * (cost - self.cost)

    @property
    def lately(self) -> float | None:
        """The mean time that a place is held, or was of late if that is less (s)."""
        return None if self.hold is None else min(self.hold, sum(self._latest) / len(self._latest))

    def wait(self, ahead: float, places: int, now: float) -> float | None:
        """Seconds until there is a place after `ahead` tokens; None before any generation has ended."""
        if self.hold is None:
            return None
        hold = max(self.hold, now - self._stirred)
        return (ahead / self.cost + 1) * hold / places


class Spread:
    """Spreads starts evenly while places are scarce.

    What starts together and is equally long ends together: then nobody gets a place for the time of a whole
    answer, and after it the server reads all the new prompts at once. This is the generic cell rate algorithm
    (ITU-T I.371, annex A) with a rate that follows the turnover. While places are not scarce it does nothing.
    """

    def __init__(self, turnover: Turnover) -> None:
        self._turnover = turnover
        self._due = self._scarce_until = float("-inf")

    def scarce(self, now: float) -> None:
        """Somebody found no place."""
        if self._turnover.hold is not None:
            self._scarce_until = now + SCARCE * self._turnover.hold

    def opens(self, now: float) -> float:
        """When the next request may start, if there is a place: a moment that may lie in the past."""
        hold = self._turnover.lately
        if hold is None or now >= self._scarce_until:
            return now
        return self._due - BURST * hold

    def started(self, places: int, now: float) -> None:
        """A request starts."""
        hold = self._turnover.lately
        if hold is not None and now < self._scarce_until:
            self._due = max(self._due, now) + SPACING * hold / places
