"""Reads answers that are running, to their end or until the reader leaves."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from business_api.arrivals import Rest, Take
from business_api.exchange import Delta


class Relays(Protocol):
    """A Generation or an Answer."""

    async def relay(self, take: Take[Sequence[Delta]]) -> None: ...


async def deltas_of(running: Relays) -> list[Delta]:
    """All deltas."""
    heard: list[Delta] = []
    await running.relay(heard.extend)
    return heard


async def text_of(running: Relays) -> str:
    """All text."""
    return "".join([delta.text for delta in await deltas_of(running)])


async def heard_into(heard: list[str], running: Relays) -> None:
    """Add the text of each delta to `heard`, which keeps it when the answer breaks off."""
    await running.relay(lambda deltas: heard.extend(delta.text for delta in deltas))


async def leave_after_the_first(running: Relays) -> Sequence[Delta]:
    """What came first. Then the reader takes no more, and is cancelled, as one who hung up."""
    first: asyncio.Future[Sequence[Delta]] = asyncio.get_running_loop().create_future()

    def take(deltas: Sequence[Delta]) -> Rest:
        first.set_result(deltas)
        return partial(asyncio.sleep, 3600)

    reading = asyncio.ensure_future(running.relay(take))
    found = await first
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    return found
