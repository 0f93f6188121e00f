"""A place at the LLM tier, and the port that lets questions in, one place each."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from business_api.assistants import Assistant
from business_api.exchange import Exchange, Question, Record


@dataclass(frozen=True)
class Place:
    """A place, and how long it was waited for. Give it back when no LLM is needed any more, at least once."""

    queue_ms: float
    give_back: Callable[[], None]

    def __del__(self) -> None:
        # an answer that nobody comes to read is dropped without an end: not its place too
        self.give_back()

    def ending(self, record: Record) -> Record:
        """`record`, giving the place back too: both are due once, however the exchange ends."""

        def give_back_and_record(exchange: Exchange) -> None:
            self.give_back()
            record(exchange)

        return give_back_and_record


Admit = Callable[[Question, Assistant], Awaitable[Place]]
"""(question, assistant) -> Place, after a wait. Raises Overloaded; RateLimited for a key over its share."""
