"""Request ids: 12 hex digits of the time in milliseconds, then 80 random bits; later ids sort later."""

import os
import time


def new_id() -> str:
    """A fresh id, 32 hex digits: also a valid W3C trace id."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
