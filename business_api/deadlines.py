"""The caller's own deadline: how long the whole of a request may take, known to all that work for it."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from business_api.errors import InvalidRequest, UpstreamTimeout

HEADER = "X-Request-Timeout-Ms"
LONGEST_MS = 86_400_000
"""A day."""

_until: ContextVar[float] = ContextVar("caller_deadline", default=math.inf)


def honour(given: str | None) -> None:
    """Take the header's milliseconds, counted from now, for this task and those it starts; None: no deadline.

    Raises InvalidRequest for anything but a whole number between 1 and LONGEST_MS.
    """
    if given is None:
        _until.set(math.inf)  # a pipelined request comes in the context of the one before it
        return
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:10]) <= LONGEST_MS):
        raise InvalidRequest(f"{HEADER}: whole milliseconds from 1 to {LONGEST_MS}", param=HEADER)
    _until.set(time.monotonic() + int(given) / 1000)


def caller_deadline() -> float:
    """When the caller stops waiting, on the clock of `time.monotonic`; infinity without a deadline."""
    return _until.get()


def deadline_passed() -> UpstreamTimeout:
    """What a caller is told whose own deadline, or that of the whole answer, has come."""
    return UpstreamTimeout("the deadline of the request has passed")


@asynccontextmanager
async def within_deadline() -> AsyncIterator[None]:
    """Around work for the caller: begins none behind the caller's deadline, and ends it then.

    Raises UpstreamTimeout.
    """
    left = _until.get() - time.monotonic()
    if left <= 0:
        raise deadline_passed()
    try:
        async with asyncio.timeout(None if left == math.inf else left) as ending:
            yield
    except TimeoutError as exc:
        if not ending.expired():
            raise
        raise deadline_passed() from exc
