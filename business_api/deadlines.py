"""The caller's own deadline: how long the whole of a request may take, known to all that work for it."""

import math
import time
from contextvars import ContextVar

from business_api.errors import InvalidRequest

HEADER = "X-Request-Timeout-Ms"
LONGEST_MS = 86_400_000
"""A day."""

_until: ContextVar[float] = ContextVar("caller_deadline", default=math.inf)


def honour(given: str | None) -> None:
    """Take the header's milliseconds, counted from now, for this task and those it starts; None: no deadline.

    Raises InvalidRequest for anything but a whole number between 1 and LONGEST_MS.
    """
    if given is None:
        return
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:10]) <= LONGEST_MS):
        raise InvalidRequest(f"{HEADER}: whole milliseconds from 1 to {LONGEST_MS}", param=HEADER)
    _until.set(time.monotonic() + int(given) / 1000)


def caller_deadline() -> float:
    """When the caller stops waiting, on the clock of `time.monotonic`; infinity without a deadline."""
    return _until.get()
