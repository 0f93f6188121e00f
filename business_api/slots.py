"""Bounds the generations that run at once on an LLM server; the queue is in our tier."""

import asyncio
import time
from collections import deque

from business_api.errors import Overloaded
from business_api.settings import LlmSettings


class Slots:
    """Bounds generations at once. Waiting is bounded in number and time; more is Overloaded."""

    def __init__(self, settings: LlmSettings) -> None:
        self._settings = settings
        self._free = asyncio.Semaphore(settings.max_in_flight)
        self._ended: deque[float] = deque(maxlen=32)
        self.waiting = 0
        self.running = 0

    async def take(self) -> float:
        """Wait for a slot; milliseconds waited. Raises Overloaded with a Retry-After from the drain rate."""
        if self._free.locked() and self.waiting >= self._settings.max_queued:
            raise Overloaded("more requests wait than the LLM tier can take", retry_after=self.retry_after())
        began = time.perf_counter()
        self.waiting += 1
        try:
            async with asyncio.timeout(self._settings.queue_deadline):
                await self._free.acquire()
        except TimeoutError as exc:
            raise Overloaded("the LLM tier had no room in time", retry_after=self.retry_after()) from exc
        finally:
            self.waiting -= 1
        self.running += 1
        return (time.perf_counter() - began) * 1000

    def give_back(self) -> None:
        """Free a slot that was taken."""
        self.running -= 1
        self._ended.append(time.monotonic())
        self._free.release()

    def retry_after(self) -> float:
        """Seconds until the queue as it stands is likely worked off, by the last generations' pace."""
        if len(self._ended) < 2:
            return 5.0
        pace = (len(self._ended) - 1) / max(0.001, time.monotonic() - self._ended[0])
        return min(60.0, max(1.0, (self.waiting + 1) / pace))
