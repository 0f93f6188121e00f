"""Ends a wait that takes too long, with one timer for the many waits of an answer."""

import asyncio
import math
import time
from types import TracebackType


class Patience:
    """Around a loop that waits often, each time on time: `waits` before a wait, `rests` behind it.

    A wait that is longer than `seconds`, or that lasts until `until` (a time.monotonic), becomes TimeoutError
    where the context ends. The task that enters it is the one that waits. A timer of its own for each wait
    would cost more than reading a delta: ours is set anew only when it rings.
    """

    def __init__(self, seconds: float, until: float = math.inf) -> None:
        self._seconds, self._until = seconds, until
        self._due = math.inf
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ran_out = False
        self._cancelling = 0

    def __enter__(self) -> "Patience":
        self._task = asyncio.current_task()
        self._ring_in(self._seconds)
        return self

    def waits(self) -> None:
        """The task is about to wait. Raises TimeoutError when it may wait no longer."""
        self._due = time.monotonic() + self._seconds
        if self._due > self._until:
            self._wait_for_the_last_time()

    def _wait_for_the_last_time(self) -> None:
        self._due, left = self._until, self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.close()
        self._ring_in(left)

    def rests(self) -> None:
        """The wait is over."""
        self._due = math.inf

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._ran_out and self._task is not None:
            ours = self._task.uncancel() <= self._cancelling  # else somebody else has cancelled it as well
            if ours and kind is asyncio.CancelledError:
                raise TimeoutError from exc

    def _ring_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        late = time.monotonic() - self._due
        if late >= 0 and self._task is not None:
            self._ran_out = True
            self._cancelling = self._task.cancelling()
            self._task.cancel()
        else:
            self._ring_in(min(self._seconds, -late))
