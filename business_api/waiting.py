"""Ends a wait that takes too long, with one timer for the many waits of an answer."""

import asyncio
import math
import time
from types import TracebackType


class Waiting:
    """The waits of one task, one after the other: `begins` before an await, `ends` behind it.

    `taken_up` says which task it is, before the first wait and when it becomes another one.

    Deltas come by the thousand, each on time: a timer of its own for each would cost more than reading it.
    Ours is set anew only when it rings, at the latest after `usual` seconds. A wait that runs out is
    cancelled, and `ran_out` tells that from other cancellations. As a context manager,
    `with waiting.until(deadline)`, it raises TimeoutError. Close it when nothing more is waited for.
    """

    __slots__ = ("_cancelling", "_due", "_out", "_rings_at", "_task", "_timer", "_usual")

    def __init__(self, usual: float) -> None:
        self._usual = usual
        self._due = self._rings_at = math.inf
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._out = False
        self._cancelling = 0

    def taken_up(self) -> None:
        """The waits that follow are the current task's, which would cost too much to ask for each time."""
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()

    def begins(self, deadline: float) -> None:
        """The task is about to wait, at most until `deadline`, on the clock of `time.monotonic`."""
        self._due = deadline
        if deadline < self._rings_at:
            self._wind(deadline)

    def ends(self) -> None:
        """The wait is over."""
        self._due = math.inf

    def run_out(self) -> None:
        """End the wait now, if there is one."""
        if self._due < math.inf and self._task is not None and not self._out:
            self._out = True
            self._task.cancel()

    def ran_out(self) -> bool:
        """Whether the CancelledError that has just been caught is ours; somebody else's goes first."""
        self.ends()
        was, self._out = self._out, False
        return was and self._task is not None and self._task.uncancel() <= self._cancelling

    def close(self) -> None:
        """Stop the timer."""
        self.ends()
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._rings_at = None, math.inf

    def until(self, deadline: float) -> "Waiting":
        """As a context manager around one wait of the current task."""
        self._due = deadline
        return self

    def __enter__(self) -> None:
        self.taken_up()
        self.begins(self._due)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.ran_out() and kind is asyncio.CancelledError:
            raise TimeoutError from exc

    def _wind(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = time.monotonic()
        wait = min(max(0.0, deadline - now), self._usual)
        self._rings_at = now + wait
        self._timer = asyncio.get_running_loop().call_later(wait, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, math.inf
        if self._due == math.inf:
            return  # nobody waits now; the next wait sets it anew
        if time.monotonic() < self._due:
            self._wind(self._due)
        else:
            self.run_out()
