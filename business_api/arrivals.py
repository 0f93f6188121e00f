"""Bytes that have arrived and nobody has read yet, bounded: a slow reader slows the writer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

T = TypeVar("T")

Rest = Callable[[], Awaitable[None]]
"""What is to be done, and waited for, before the next piece is taken."""
Take = Callable[[T], Rest | None]
"""Takes what arrives, at once: called while the event loop reads a socket. None: go on with the next."""

FULL = 256 * 1024
"""Bytes at which the writer is told to pause; it goes on when all of them are read."""


class Arrivals:
    """What one writer brings to one reader. `pause` and `resume` are called in turns.

    What arrives is read when somebody comes to read it, or handed on as it arrives by `relay`, which spares
    waking a reader for each piece.
    """

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause, self._resume = pause, resume
        self.pieces: list[bytes] = []
        self._size = 0
        self._paused = False
        self._failure: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._take: Take[bytes] | None = None
        self._rest: Rest | None = None
        self._stopped = False
        self.over = False

    def add(self, piece: bytes) -> None:
        """Something has arrived."""
        self.pieces.append(piece)
        self.added(len(piece))

    def added(self, size: int) -> None:
        """Bytes were appended to `pieces`, about so many."""
        if not self.pieces:
            return
        reader = self._reader
        if self._take is not None and reader is not None and not reader.done():  # else it is about to leave
            try:
                self._rest = self._take(self._taken())
            except Exception as exc:  # noqa: BLE001 - it is the relay's to raise, not the event loop's
                self._rest = partial(_raised, exc)
            if self._rest is not None:
                self._take = None
                self._wake()
            return
        self._size += size
        if self._size >= FULL and not self._paused and not self.over:
            self._paused = True
            self._pause()
        self._wake()

    def end(self, failure: Exception | None = None) -> None:
        """Nothing more will arrive; `failure` is raised to the reader behind all that has. Idempotent."""
        if not self.over:
            self.over = True
            self._failure = failure
            self._go_on()
            self._wake()

    async def read(self) -> bytes:
        """All that has arrived, as soon as there is something; nothing at the end. Raises the failure."""
        while not self.pieces:
            if self._failure is not None:
                raise self._failure
            if self.over:
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._taken()

    async def relay(self, take: Take[bytes]) -> None:
        """Hand what arrives on to `take`, all that has arrived together at once, until the end or `stop`.

        Raises the failure behind all that has arrived, and what `take` raises.
        """
        while not self._stopped:
            if self.pieces:
                self._rest = take(self._taken())
            elif self._failure is not None:
                raise self._failure
            elif self.over:
                return
            else:
                self._take = take
                self._reader = asyncio.get_running_loop().create_future()
                try:
                    await self._reader
                finally:
                    self._take = None
            if self._rest is not None:
                rest, self._rest = self._rest, None
                await rest()

    def stop(self) -> None:
        """Nobody wants more: `relay` ends."""
        self._stopped = True
        self._wake()

    def _taken(self) -> bytes:
        pieces = self.pieces
        found = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        self._go_on()
        return found

    def _go_on(self) -> None:
        if self._paused:
            self._paused = False
            self._resume()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


async def _raised(exc: Exception) -> None:
    raise exc


class Arriving:
    """A response whose body is read as it arrives: what the replies of transport.py share."""

    def __init__(self, arrivals: Arrivals, status: int, headers: Mapping[str, str]) -> None:
        self.read, self.relay = arrivals.read, arrivals.relay
        self._arrivals = arrivals
        self.status = status
        self.headers = headers

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece
