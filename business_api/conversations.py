"""What was said before a question of the chatbot: read from the exchanges, not too many at once."""

import asyncio
from dataclasses import dataclass, field

from business_api.errors import Overloaded
from business_api.exchange import Message
from business_api.sink import Sink

TURNS = 6
"""Earlier questions of a conversation that are sent along."""
READERS = 64
"""Conversations that may wait for the disk at once; more are refused until it answers."""


@dataclass(frozen=True)
class Conversations:
    """Conversations by tenant and id, over what the sink has recorded."""

    sink: Sink
    _reading: set["asyncio.Future[list[tuple[str, str]]]"] = field(default_factory=set)

    async def earlier(self, tenant: str, conversation: str) -> tuple[Message, ...]:
        """The last answered questions with their answers, oldest first.

        Raises Unavailable when they cannot be read, Overloaded when too many others wait for theirs.
        """
        if len(self._reading) >= READERS:
            raise Overloaded("the store of exchanges is held up: no conversation can go on", retry_after=1.0)
        reading = asyncio.ensure_future(asyncio.to_thread(self._turns, tenant, conversation))
        self._reading.add(reading)
        reading.add_done_callback(self._read)
        turns = await asyncio.shield(reading)  # a caller who hangs up does not stop the thread
        pairs = [(Message(role="user", content=q), Message(role="assistant", content=a)) for q, a in turns]
        return tuple(message for pair in pairs for message in pair)

    def _turns(self, tenant: str, conversation: str) -> list[tuple[str, str]]:
        self.sink.drain_now(timeout=0.5)  # a store that is held up must not hold up answers
        return self.sink.store.history(tenant, conversation, TURNS)

    def _read(self, reading: "asyncio.Future[list[tuple[str, str]]]") -> None:
        self._reading.discard(reading)
        if not reading.cancelled():
            reading.exception()  # seen, even if nobody waits for it any more
