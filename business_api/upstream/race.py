"""Attempts beside each other: the first to begin wins, the others are called off."""

import asyncio

from business_api.settings import LlmSettings
from business_api.upstream.asked import Asked
from business_api.upstream.replica import Replica
from business_api.upstream.stream import Stream


class Race:
    """One question on several replicas. Whoever has not won closes its stream by itself."""

    def __init__(self, settings: LlmSettings) -> None:
        self._settings = settings
        self._winner: Stream | None = None
        self._streams: list[Stream] = []
        self._running: list[asyncio.Task[None]] = []

    def enter(self, replica: Replica, asked: Asked) -> None:
        """One more attempt."""
        task = asyncio.create_task(self._run(replica, asked))
        task.add_done_callback(_noted)
        self._running.append(task)

    async def _run(self, replica: Replica, asked: Asked) -> None:
        stream = Stream(replica, asked, self._settings)
        self._streams.append(stream)
        await stream.begin()
        if self._winner is None:
            self._winner = stream
            for other in self._streams:
                if other is not stream:
                    other.ended("outpaced")
        else:
            await stream.aclose()

    async def wait(self, seconds: float) -> bool:
        """Whether one of them has begun or failed after so long."""
        done, _ = await asyncio.wait(self._running, timeout=seconds)
        return bool(done)

    async def won(self) -> Stream:
        """The first stream to begin. Raises Failed, the last one, when none does."""
        pending: set[asyncio.Task[None]] = set(self._running)
        while True:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if self._winner is not None:
                return self._winner
            if not pending:
                return _failure(done)

    def call_off(self) -> None:
        """Stop those that are still running."""
        for task in self._running:
            task.cancel()

    async def annul(self) -> None:
        """Nobody wants the winner any more."""
        self.call_off()
        if self._winner is not None:
            await self._winner.aclose()


def _failure(done: "set[asyncio.Task[None]]") -> Stream:
    for task in done:
        task.result()
    raise AssertionError("who has not failed has won")


def _noted(task: "asyncio.Task[None]") -> None:
    """Read the failure of an attempt that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
