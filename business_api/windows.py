"""How much of a rate was spent of late, in memory.

A window is cut into 60 slots. What was spent counts until its whole slot lies a window back, so that no span
of a window's length ever holds more than the limit; in return it counts up to one slot longer. A million
tokens take no more room than one, and what was reserved in a slot can be corrected there.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

SLOTS = 60


class Rate(msgspec.Struct, frozen=True):
    """At most `limit` units in any `seconds`. What is spent is kept under the name: the limit may change."""

    name: str
    limit: int
    seconds: int


class Allowance(msgspec.Struct, frozen=True):
    """What may still be spent: `remaining` of `limit` units, all of them in `reset_seconds`."""

    limit: int
    remaining: int
    reset_seconds: float


class Taken(msgspec.Struct, frozen=True):
    """Whether units were counted. If not, they fit in `wait` seconds, unless others come first.

    `slots` and `left` have one entry per rate: where the units were counted, and what is left; none when they
    were let through uncounted. `apart`: counted by this process alone, because the shared windows were away.
    """

    granted: bool
    wait: float
    slots: tuple[int, ...]
    left: tuple[Allowance, ...]
    apart: bool = False


class Windows(Protocol):
    """The windows of all keys."""

    @property
    def apart(self) -> Mapping[str, int]:
        """How often units were not counted where they are shared, by what was done instead."""

    @property
    def lost(self) -> int:
        """Corrections that could not be made: what they would give back counts until its time is over."""

    async def take(self, key: str, rates: Sequence[Rate], amount: int) -> Taken:
        """Count `amount` units in every rate, or in none if they do not fit into one. Raises Unavailable.

        No amount is larger than a rate's limit. A cancelled call counts nothing in the end.
        """

    def correct(self, key: str, rates: Sequence[Rate], taken: Taken, by: int) -> None:
        """Count `by` units more (from now on, over the limit if need be) or less (where they were counted).

        Waits for nothing and does not fail.
        """

    async def settled(self) -> None:
        """Wait until every correction was made or lost."""

    async def aclose(self) -> None:
        """Finish corrections, close connections."""


class MemoryWindows:
    """The windows of this process, by a clock that never goes back. `take` never suspends."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[tuple[str, str], _Window] = {}
        self.apart: Mapping[str, int] = {}
        self.lost = 0

    async def take(self, key: str, rates: Sequence[Rate], amount: int) -> Taken:
        """Count `amount` units in every rate, or in none."""
        now = self._clock()
        windows = [self._window(key, rate, now) for rate in rates]
        pairs = list(zip(windows, rates, strict=True))
        wait = max([window.wait(window.used + amount - rate.limit, now) for window, rate in pairs])
        if wait == 0 and amount:
            for window in windows:
                window.add(amount)
        left = tuple([window.left(rate.limit, now) for window, rate in pairs])
        return Taken(wait == 0, wait, tuple([window.current for window in windows]), left)

    def correct(self, key: str, rates: Sequence[Rate], taken: Taken, by: int) -> None:
        """Count `by` units more or less."""
        now = self._clock()
        for rate, slot in zip(rates, taken.slots, strict=True):
            window = self._window(key, rate, now)
            if by > 0:
                window.add(by)
            else:
                window.give_back(slot, -by)

    async def settled(self) -> None:
        """They are made at once."""

    async def aclose(self) -> None:
        """Nothing is open."""

    def _window(self, key: str, rate: Rate, now: float) -> "_Window":
        window = self._windows.get((key, rate.name))
        if window is None:
            window = self._windows[key, rate.name] = _Window(rate.seconds / SLOTS)
        window.move(now)
        return window


class _Window:
    """Units by slot, oldest first; only slots that still count and hold something."""

    __slots__ = ("current", "slots", "used", "width")

    def __init__(self, width: float) -> None:
        self.width = width
        self.slots: dict[int, int] = {}
        self.used = 0
        self.current = 0

    def move(self, now: float) -> None:
        """Forget what counts no more."""
        self.current = int(now // self.width)
        while self.slots and (oldest := next(iter(self.slots))) < self.current - SLOTS:
            self.used -= self.slots.pop(oldest)

    def add(self, amount: int) -> None:
        self.slots[self.current] = self.slots.get(self.current, 0) + amount
        self.used += amount

    def give_back(self, slot: int, amount: int) -> None:
        held = self.slots.get(slot, 0)
        if amount < held:
            self.slots[slot] = held - amount
            self.used -= amount
        elif held:
            self.used -= self.slots.pop(slot)

    def wait(self, over: int, now: float) -> float:
        """Seconds until `over` units of the oldest count no more; 0 for none."""
        if over <= 0:
            return 0.0
        for slot, units in self.slots.items():
            over -= units
            if over <= 0:
                return self._until_gone(slot, now)
        return math.inf

    def left(self, limit: int, now: float) -> Allowance:
        reset = self._until_gone(next(reversed(self.slots)), now) if self.slots else 0.0
        return Allowance(limit, max(limit - self.used, 0), reset)

    def _until_gone(self, slot: int, now: float) -> float:
        return (slot + SLOTS + 1) * self.width - now
