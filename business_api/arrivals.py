"""Bytes that have arrived and nobody has read yet, bounded: a slow reader slows the writer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

FULL = 256 * 1024
"""Bytes at which the writer is told to pause; it goes on when all of them are read."""


class Arrivals:
    """What one writer brings to one reader. `pause` and `resume` are called in turns."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause, self._resume = pause, resume
        self.pieces: list[bytes] = []
        self._size = 0
        self._paused = False
        self._failure: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self.over = False

    def add(self, piece: bytes) -> None:
        """Something has arrived."""
        self.pieces.append(piece)
        self.added(len(piece))

    def added(self, size: int) -> None:
        """Bytes were appended to `pieces`, about so many."""
        if not self.pieces:
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
        found = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.pieces.clear()
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


class Arriving:
    """A response whose body is read as it arrives: what the replies of transport.py share."""

    def __init__(self, arrivals: Arrivals, status: int, headers: Mapping[str, str]) -> None:
        self.read = arrivals.read
        self.status = status
        self.headers = headers

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece
