"""A place at the LLM tier, and the port that lets questions in, one place each."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from business_api.assistants import Assistant
from business_api.exchange import Exchange, Outcome, Question, Record
from business_api.token_pace import ms_per_token


@dataclass(frozen=True)
class Place:
    """A place, and how long it was waited for. Give it back when no LLM is needed any more, at least once.

    `answered` is told the ms per token of an answer that was said whole.
    """

    queue_ms: float
    give_back: Callable[[], None]
    answered: Callable[[float], None] = lambda ms_per_token: None

    def __del__(self) -> None:
        # an answer that nobody comes to read is dropped without an end: not its place too
        self.give_back()

    def ending(self, record: Record) -> Record:
        """`record`, giving the place back too: both are due once, however the exchange ends."""

        def give_back_and_record(exchange: Exchange) -> None:
            if (pace := _ms_per_token(exchange)) is not None:
                self.answered(pace)
            self.give_back()
            record(exchange)

        return give_back_and_record


Admit = Callable[[Question, Assistant], Awaitable[Place]]
"""(question, assistant) -> Place, after a wait. Raises Overloaded; RateLimited for a key over its share."""

Room = Callable[[Question, Assistant], None]
"""(question, assistant): raises what `Admit` would raise at once if it were asked now."""


def _ms_per_token(exchange: Exchange) -> float | None:
    """Between the first token and the last; None of an answer that is too short to tell, or came in parts."""
    if exchange.outcome is not Outcome.ANSWERED or exchange.usage is None or len(exchange.attempts) != 1:
        return None
    took = exchange.attempts[0].ms - exchange.timings_ms["ttft"]
    return ms_per_token(took, exchange.usage.completion_tokens)
