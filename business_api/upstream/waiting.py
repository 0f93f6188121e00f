"""Ends a wait that takes too long, with one timer for the many waits of an answer."""

import asyncio
import math
import time
from types import TracebackType


class Waiting:
    """A context manager around one await at a time: `with waiting.until(deadline): ...` raises TimeoutError.

    Deltas come by the thousand, each on time: a timer of its own for each would cost more than reading it.
    The timer goes on to the latest deadline only when it rings. Close it when there is nothing to wait for.
    """

    __slots__ = ("_cancelling", "_due", "_ran_out", "_task", "_timer")

    def __init__(self) -> None:
        self._due = math.inf
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ran_out = False
        self._cancelling = 0

    def until(self, deadline: float) -> "Waiting":
        """Wait at most until `deadline`, on the clock of `time.monotonic`."""
        earlier = deadline < self._due
        self._due = deadline
        if self._timer is None or earlier:
            self._wind()
        return self

    def _wind(self) -> None:
        self.close()
        wait = max(0.0, self._due - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(wait, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if time.monotonic() < self._due:
            self._wind()
        else:
            self.run_out()

    def run_out(self) -> None:
        """End the wait now, if there is one."""
        if self._task is not None and not self._ran_out:
            self._ran_out = True
            self._task.cancel()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._ran_out = False

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if not self._ran_out or task is None:
            return
        ours = task.uncancel() <= self._cancelling  # else somebody else has cancelled the task as well
        if ours and kind is asyncio.CancelledError:
            raise TimeoutError from exc
