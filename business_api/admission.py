"""Lets requests in front of the LLM, one place each: waits where `gate` says so, and gives places back."""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import get_args

from business_api.assistants import Assistant
from business_api.deadlines import caller_deadline, deadline_passed
from business_api.errors import ServiceError
from business_api.exchange import Priority, Question
from business_api.gate import Gate, Rules, Verdict
from business_api.keys import ANONYMOUS
from business_api.limiting import Bounds
from business_api.place import Place
from business_api.queueing import Ticket
from business_api.settings import LlmSettings
from business_api.spending import Spending

PRIORITIES = get_args(Priority)
EARLY = 0.005
"""Seconds by which a timer may ring too soon: uvloop's know whole milliseconds."""


class Admission:
    """The gate with callers who wait at it. For one event loop."""

    def __init__(
        self,
        settings: LlmSettings,
        priorities: Mapping[str, Priority],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._priorities = priorities
        self._spending = Spending(settings.context_tokens, settings.bytes_per_token)
        self._clock = clock
        self._turns: dict[Ticket, asyncio.Future[ServiceError | None]] = {}
        self._opening: asyncio.TimerHandle | None = None
        self.gate = Gate(rules_of(settings))

    async def admit(self, question: Question, assistant: Assistant) -> Place:
        """Wait for a place (the `Admit` port).

        Raises Overloaded, RateLimited for a key over its share, UpstreamTimeout at the caller's own deadline.
        """
        began = self._clock()
        ticket = self._ticket(question, assistant, began)
        told = self.gate.arrive(ticket, began)
        if told == [(ticket, None)]:
            return self._place(ticket, 0.0)
        if (refusal := await self._turn(ticket, told)) is not None:
            raise deadline_passed() if caller_deadline() <= self._clock() + EARLY else refusal
        return self._place(ticket, (self._clock() - began) * 1000)

    def room(self, question: Question, assistant: Assistant) -> None:
        """Raise what `admit` would raise at once if it were asked now (the `Room` port)."""
        now = self._clock()
        refused = self.gate.turned_away(self._ticket(question, assistant, now), now)
        if refused is not None:
            raise deadline_passed() if caller_deadline() <= now + EARLY else refused

    def _place(self, ticket: Ticket, queue_ms: float) -> Place:
        return Place(queue_ms, partial(self._leave, ticket), partial(self._answered, ticket))

    async def _turn(self, ticket: Ticket, told: list[Verdict]) -> ServiceError | None:
        """The verdict on the ticket, once it has come."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[ServiceError | None] = loop.create_future()
        self._turns[ticket] = turn
        timer = loop.call_later(ticket.deadline - ticket.arrived, self._expire, ticket)
        try:
            self._tell(told)
            return await turn
        except BaseException:
            self._leave(ticket)
            raise
        finally:
            timer.cancel()
            del self._turns[ticket]

    def observe(self, ttft_ms: float | None, prompt_tokens: int) -> None:
        """Learn from a first token (ms after it was asked for), or from a server without room (None)."""
        self._tell(self.gate.observe(ttft_ms, prompt_tokens, self._clock()))

    def _ticket(self, question: Question, assistant: Assistant, now: float) -> Ticket:
        return Ticket(
            key=question.key or ANONYMOUS,
            rank=self._rank(question),
            cost=self._spending.estimate(question, assistant),
            arrived=now,
            deadline=min(now + self._settings.queue_deadline, caller_deadline()),
        )

    def _rank(self, question: Question) -> int:
        """The key's class, or the lower one that was asked for: nobody can ask for a higher one."""
        own = self._priorities.get(question.key or "", "normal")
        return max(map(PRIORITIES.index, (own, question.priority or own)))

    def _tell(self, verdicts: list[Verdict]) -> None:
        for ticket, refusal in verdicts:
            if not self._turns[ticket].done():
                self._turns[ticket].set_result(refusal)
        if self._opening is None and self.gate.waiting:
            self._open_later()

    def _open_later(self) -> None:
        """Come back when the gate opens, if somebody waits beside a free place."""
        now = self._clock()
        if (opens := self.gate.opens(now)) is not None:
            self._opening = asyncio.get_running_loop().call_later(opens - now, self._open)

    def _open(self) -> None:
        self._opening = None
        self._tell(self.gate.admit(self._clock()))

    def _expire(self, ticket: Ticket) -> None:
        self._tell(self.gate.expire(ticket, self._clock()))

    def _answered(self, ticket: Ticket, ms_per_token: float) -> None:
        self.gate.answered(ticket, ms_per_token, self._clock())

    def _leave(self, ticket: Ticket) -> None:
        self._tell(self.gate.leave(ticket, self._clock()))


def rules_of(settings: LlmSettings) -> Rules:
    """What the settings ask for; `max_in_flight` bounds the other two."""
    most = settings.max_in_flight
    bounds = Bounds(
        start=min(settings.start_in_flight, most),
        least=min(settings.min_in_flight, most),
        most=most,
        tolerated_ms=settings.tolerated_queue * 1000,
        pace_ms=settings.tolerated_pace * 1000,
    )
    return Rules(bounds, settings.max_queued)
