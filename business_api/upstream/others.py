"""The fallbacks that a question may still go to, and their seats."""

import asyncio
import math
import time
from collections.abc import Mapping
from itertools import takewhile

from business_api.upstream import Upstream
from business_api.upstream.asked import Asked
from business_api.upstream.leaving import LOOK, Leaving
from business_api.upstream.seats import Seat, Seats

LOOKS = 10
"""So often a question without a tier looks for a seat, `LOOK` apart."""


class Others:
    """Those that are `left`, by name, in the order in which they are asked."""

    def __init__(self, left: Mapping[str, Upstream]) -> None:
        self.left = dict(left)

    @property
    def serving(self) -> list[str]:
        """Those with a server that is in."""
        return [name for name, one in self.left.items() if not one.pool.all_out]

    def free(self) -> Seats | None:
        """Seats of the first that has a server in and one of them free."""
        known = self.left.values()
        return next((one.seats for one in known if not one.seats.full and not one.pool.all_out), None)

    async def seat(self, asked: Asked) -> Seat | None:
        """A seat of the first that has one, who is out last; None when none comes free soon."""
        for _ in range(LOOKS):
            if self.free() is not None or not self.serving or asked.left <= 0:
                break
            await asyncio.sleep(min(LOOK, asked.left))
        seats = self.free()
        if not self.serving:
            seats = next((one.seats for one in self.left.values() if not one.seats.full), None)
        return None if seats is None else seats.take()

    def before(self, seat: Seat) -> list[str]:
        """Those with a server in who would be asked before the one with this seat, and are full."""
        known = takewhile(lambda name: self.left[name].seats is not seat.of, self.serving)
        return [name for name in known if self.left[name].seats.full]

    def pop(self, seat: Seat) -> tuple[str, Upstream]:
        """Whose seat that is. It is not left any more."""
        name = next(name for name, one in self.left.items() if one.seats is seat.of)
        return name, self.left.pop(name)

    def leaving(self, tier: Upstream, asked: Asked) -> Leaving:
        """When the question leaves this tier for one of these; never if there are none."""
        soon = min(tier.settings.fallback_after, asked.left / 2)
        return Leaving(time.monotonic() + soon if self.left else math.inf, self.free)
