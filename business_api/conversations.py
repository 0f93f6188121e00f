"""What was said before a question of the chatbot: read from the exchanges, not too many at once."""

import asyncio
from dataclasses import dataclass, field

from business_api.errors import Unavailable
from business_api.exchange import Message
from business_api.sink import Sink

TURNS = 6
"""Earlier questions of a conversation that are sent along."""
READERS = 4
"""Conversations that are read at once, each in a thread; fewer than the threads that others use too."""
PATIENCE = 2.0
"""Seconds that one may wait until it is read: a disk that works reads hundreds in that time."""
COME_BACK = 5.0
"""Seconds after which a store that is held up may work again."""


@dataclass(frozen=True)
class Conversations:
    """Conversations by tenant and id, over what the sink has recorded."""

    sink: Sink
    _reading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READERS))

    async def earlier(self, tenant: str, conversation: str) -> tuple[Message, ...]:
        """The last answered questions with their answers, oldest first.

        Raises Unavailable when they cannot be read, or others are waited for too long.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                await self._reading.acquire()
        except TimeoutError as exc:
            told = "the store of exchanges is held up, and conversations cannot go on"
            raise Unavailable(told, retry_after=COME_BACK) from exc
        reading = asyncio.ensure_future(asyncio.to_thread(self._turns, tenant, conversation))
        reading.add_done_callback(self._read)
        turns = await asyncio.shield(reading)  # a caller who hangs up does not stop the thread
        pairs = [(Message(role="user", content=q), Message(role="assistant", content=a)) for q, a in turns]
        return tuple(message for pair in pairs for message in pair)

    def _turns(self, tenant: str, conversation: str) -> list[tuple[str, str]]:
        self.sink.drain_now(timeout=0.5)  # a store that is held up must not hold up answers
        return self.sink.store.history(tenant, conversation, TURNS)

    def _read(self, reading: "asyncio.Future[list[tuple[str, str]]]") -> None:
        self._reading.release()
        if not reading.cancelled():
            reading.exception()  # seen, even if nobody waits for it any more
