"""When a question leaves a tier that has not begun: after its time, as soon as another one takes it."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import Self

from business_api.errors import Unavailable
from business_api.upstream.seats import Seat, Seats
from business_api.waiting import Waiting

LOOK = 0.1
"""Seconds between two looks for a free seat."""


class Leaving:
    """Ends a question's waits for servers that have not begun, once it has a `seat` elsewhere.

    It looks for one from `after` on, a moment of `time.monotonic`; `free` names seats of which one is free.
    While there are none the question waits on: a slow tier may still answer. Use it as a context manager
    around what waits. The seat is kept for whom the tier has failed (Unavailable), left in all other cases.
    """

    def __init__(self, after: float, free: Callable[[], Seats | None]) -> None:
        self._after, self._free = after, free
        self._waits = set[Waiting]()
        self._thinking = set[Waiting]()
        self._timer: asyncio.TimerHandle | None = None
        self._seated = asyncio.Event()
        self.seat: Seat | None = None

    def __enter__(self) -> Self:
        self._look_in(self._after - time.monotonic())
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.seat is not None and not isinstance(exc, Unavailable):
            self.seat.leave()
            self.seat = None

    @property
    def left(self) -> float:
        """Seconds until it leaves, as things are now; infinite while no other tier has a seat."""
        return math.inf if self._free() is None else self._after - time.monotonic()

    def may_end(self, waiting: Waiting) -> None:
        """A server is about to be waited for."""
        self._waits.add(waiting)

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until it has a seat."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._seated.wait()

    def not_yet(self, waiting: Waiting) -> None:
        """The server thinks: it is not late. Called again and again."""
        self._thinking.add(waiting)

    def over(self, waiting: Waiting) -> None:
        """Nothing more is waited for there."""
        self._waits.discard(waiting)
        self._thinking.discard(waiting)

    def _look_in(self, seconds: float) -> None:
        if seconds < math.inf:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._look)

    def _look(self) -> None:
        seats = None if self._thinking else self._free()
        if seats is None:
            self._look_in(LOOK)
            return
        self.seat = seats.take()
        self._seated.set()
        for waiting in tuple(self._waits):
            waiting.run_out()
