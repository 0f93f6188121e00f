"""What arrives is handed on at once, in order, and never faster than it is taken."""

import asyncio
from functools import partial

import pytest

from business_api.arrivals import FULL, Arrivals, Rest
from business_api.errors import UpstreamUnavailable


class Writer:
    """One that writes into arrivals, and stops when it is told to."""

    def __init__(self) -> None:
        self.arrivals = Arrivals(lambda: self.told.append("pause"), lambda: self.told.append("resume"))
        self.told: list[str] = []


class Taker:
    """Takes pieces; after each one it needs a rest, if `rests`, until it is `rested`."""

    def __init__(self, *, rests: bool = False) -> None:
        self.pieces: list[bytes] = []
        self.rested = asyncio.Event()
        self._rests = rests

    def __call__(self, piece: bytes) -> Rest | None:
        self.pieces.append(piece)
        return self._rest if self._rests else None

    async def _rest(self) -> None:
        await self.rested.wait()
        self.rested.clear()


async def going_on() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_piece_is_handed_on_before_the_writer_goes_on() -> None:
    arrivals, taker = Writer().arrivals, Taker()
    arrivals.add(b"before")
    relaying = asyncio.create_task(arrivals.relay(taker))
    await going_on()
    arrivals.add(b"one")
    arrivals.add(b"two")
    assert taker.pieces == [b"before", b"one", b"two"]
    arrivals.end()
    await relaying


async def test_what_arrives_during_a_rest_is_handed_on_together_behind_it() -> None:
    arrivals, taker = Writer().arrivals, Taker(rests=True)
    relaying = asyncio.create_task(arrivals.relay(taker))
    await going_on()
    for piece in (b"one", b"two", b"three"):
        arrivals.add(piece)
    await going_on()
    assert taker.pieces == [b"one"]
    taker.rested.set()
    await going_on()
    assert taker.pieces == [b"one", b"twothree"]
    arrivals.end()
    taker.rested.set()
    await relaying


async def test_a_long_rest_pauses_the_writer_until_the_pieces_are_taken() -> None:
    writer, taker = Writer(), Taker(rests=True)
    relaying = asyncio.create_task(writer.arrivals.relay(taker))
    await going_on()
    writer.arrivals.add(b"one")
    writer.arrivals.add(b" " * FULL)
    assert writer.told == ["pause"]
    taker.rested.set()
    await going_on()
    assert writer.told == ["pause", "resume"]
    relaying.cancel()


async def test_a_failure_is_raised_behind_all_that_had_arrived() -> None:
    arrivals, taker = Writer().arrivals, Taker()
    arrivals.add(b"one")
    arrivals.end(UpstreamUnavailable("broke off"))
    with pytest.raises(UpstreamUnavailable):
        await arrivals.relay(taker)
    assert taker.pieces == [b"one"]


@pytest.mark.parametrize("ended", [False, True], ids=["under way", "with the last piece"])
async def test_what_taking_raises_is_the_relays_and_not_the_writers(ended: bool) -> None:
    def refuse(piece: bytes) -> None:
        raise ValueError(piece)

    arrivals = Writer().arrivals
    relaying = asyncio.create_task(arrivals.relay(refuse))
    await going_on()
    if ended:
        arrivals.end()
    arrivals.add(b"one")
    with pytest.raises(ValueError, match="one"):
        await relaying


async def test_stopped_from_within_it_hands_on_nothing_more() -> None:
    writer, taken = Writer(), []

    def take(piece: bytes) -> None:
        taken.append(piece)
        writer.arrivals.stop()

    relaying = asyncio.create_task(writer.arrivals.relay(take))
    await going_on()
    writer.arrivals.add(b"one")
    await relaying
    writer.arrivals.add(b"two")
    assert taken == [b"one"]


async def test_cancelled_it_hands_on_nothing_more() -> None:
    arrivals, taker = Writer().arrivals, Taker()
    relaying = asyncio.create_task(arrivals.relay(taker))
    await going_on()
    relaying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await relaying
    arrivals.add(b"one")
    assert taker.pieces == []


@pytest.mark.parametrize("cancelled", [False, True], ids=["stopped", "cancelled"])
async def test_what_arrives_before_an_end_is_noticed_is_not_handed_on(cancelled: bool) -> None:
    arrivals, taker = Writer().arrivals, Taker(rests=True)
    relaying = asyncio.create_task(arrivals.relay(taker))
    await going_on()
    if cancelled:
        relaying.cancel()
    else:
        arrivals.stop()
    arrivals.add(b"one")
    assert taker.pieces == []
    await asyncio.wait([relaying])
    assert taker.pieces == []


async def test_a_rest_that_fails_ends_the_relay() -> None:
    async def fail(error: Exception) -> None:
        raise error

    arrivals = Writer().arrivals
    relaying = asyncio.create_task(arrivals.relay(lambda _: partial(fail, ValueError("gone"))))
    await going_on()
    arrivals.add(b"one")
    with pytest.raises(ValueError, match="gone"):
        await relaying
