"""Who may go to the LLM now, who waits, and who is sent away with what. Decides; waits for nothing.

Every change is told the time and answers with verdicts: pairs of a ticket and None (it has a place now) or
the error that its caller gets. A ticket gets one verdict, or none if it leaves before.
"""

from collections import Counter
from collections.abc import Mapping

import msgspec

from business_api.errors import Overloaded, RateLimited, ServiceError
from business_api.limiting import Bounds, Limit
from business_api.prompt_cost import Sample
from business_api.queueing import Queue, Ticket
from business_api.token_pace import Answered
from business_api.turnover import Spread, Turnover

Verdict = tuple[Ticket, ServiceError | None]

RANKS = 3
UNKNOWN_WAIT = 5.0
"""Seconds to come back after, before any generation has ended."""
SHORTEST, LONGEST = 1.0, 60.0
"""Seconds between which Retry-After stays."""
SPREAD = 0.5
"""Retry-After is up to this share longer than the estimate, so that not all come back at once."""
TURN = 0.618033988749895
"""The golden ratio's part: its multiples spread evenly over 0..1."""
OVER_SHARE = 1.5
"""A key with so many times the requests of an even share is told that it is the one who asks too much."""
SURE = 0.5
"""Share of its time to wait that the estimate for a newcomer may take, unless its key asks less than an even
share. Places come free unevenly, and fewer of them when the limit falls; who is refused in the end has waited
for nothing. Simulated (`loadtests.overload`, 16 seats, 1 to 10 times the capacity, behind the first 5 s): of
those refused none had waited with half of 0.75 s, up to 4 % with 0.75 of 0.5 s, which lets in as many."""
WHY = {
    "hopeless": "would wait longer than it may",
    "full": "finds no room to wait",
    "displaced": "gave way to others who wait",
    "expired": "has waited as long as it may",
}
"""Reasons to send a request away."""


class Rules(msgspec.Struct, frozen=True):
    """What a gate keeps to: bounds of its limit, most that may wait."""

    bounds: Bounds
    most_waiting: int


class Gate:
    """Places, the queue in front of them, and the limit that says how many there are."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._limit = Limit(rules.bounds)
        self._turnover = Turnover()
        self._spread = Spread(self._turnover)
        self._queue = Queue(RANKS)
        self._running: dict[Ticket, float] = {}
        self._present: Counter[str] = Counter()
        self._turn = 0.0
        self._shed_by: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """Places in use."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def places(self) -> int:
        """Places that there are now."""
        return self._limit.places

    @property
    def keys(self) -> int:
        """Keys with a request that runs or waits."""
        return len(self._present)

    def shed(self) -> Mapping[str, int]:
        """Requests sent away so far, by why."""
        return self._shed_by

    def arrive(self, ticket: Ticket, now: float) -> list[Verdict]:
        """A new request. Without a verdict on it, it waits."""
        self._present[ticket.key] += 1
        if not self.waiting and self._open(now):
            return [self._let_in(ticket, now)]
        if (refused := self._refused(ticket, now)) is not None:
            return [refused]
        if self.waiting < self._rules.most_waiting:
            self._queue.push(ticket)
            return []
        leaving = self._queue.to_give_way(ticket)
        assert leaving is not None, "who waits instead of nobody is refused"
        self._queue.remove(leaving)
        self._queue.push(ticket)
        return [self._shed(leaving, "displaced", self._wait(leaving, now))]

    def turned_away(self, ticket: Ticket, now: float) -> ServiceError | None:
        """What `arrive` would refuse this request with, if it would; the request has not come yet."""
        self._present[ticket.key] += 1
        refused = None if not self.waiting and self._open(now) else self._refused(ticket, now)
        if refused is None:
            self._gone(ticket)
            return None
        return refused[1]

    def _refused(self, ticket: Ticket, now: float) -> Verdict | None:
        """The refusal of a request that cannot have a place at once; None if it may wait."""
        wait = self._wait(ticket, now)
        sure = SURE if self._share(ticket.key) >= 1 else 1.0
        if wait is not None and wait > sure * (ticket.deadline - now):
            return self._shed(ticket, "hopeless", wait)
        if self.waiting < self._rules.most_waiting or self._queue.to_give_way(ticket) is not None:
            return None
        return self._shed(ticket, "full", wait)

    def expire(self, ticket: Ticket, now: float) -> list[Verdict]:
        """The ticket's deadline has come while it waited."""
        if not self._queue.remove(ticket):
            return []
        return [self._shed(ticket, "expired", self._wait(ticket, now))]

    def leave(self, ticket: Ticket, now: float) -> list[Verdict]:
        """The request is over, or its caller hung up, wherever it is by now. Harmless when it has left."""
        if (since := self._running.pop(ticket, None)) is not None:
            self._turnover.ended(ticket.cost, now - since, now)
        elif not self._queue.remove(ticket):
            return []
        self._gone(ticket)
        return self.admit(now)

    def observe(self, ttft_ms: float | None, prompt_tokens: int, now: float) -> list[Verdict]:
        """A first token came after so long; None: the LLM server had no room."""
        if ttft_ms is None:
            self._limit.refused(now, self.running)
        else:
            sample = Sample(now - ttft_ms / 1000, ttft_ms, prompt_tokens)
            self._limit.observe(sample, now, self.running, self._turnover.hold)
        return self.admit(now)

    def answered(self, ticket: Ticket, ms_per_token: float, now: float) -> None:
        """A running request has been answered whole, its tokens so far apart. It has still to leave."""
        if (since := self._running.get(ticket)) is not None:
            self._limit.answered(Answered(since, ms_per_token), now, self.running)

    def opens(self, now: float) -> float | None:
        """When `admit` is due because somebody waits beside a free place, None if nobody does."""
        waits = self.waiting and self.running < self.places
        return max(now, self._spread.opens(now)) if waits else None

    def admit(self, now: float) -> list[Verdict]:
        """Let in who may go now. Needs a call only when `opens` has said so."""
        verdicts: list[Verdict] = []
        while self.waiting and self._open(now):
            verdicts.append(self._let_in(self._queue.pop(), now))
        return verdicts

    def _open(self, now: float) -> bool:
        """Whether one more may start."""
        if self.running >= self.places:
            self._spread.scarce(now)
            return False
        return self._spread.opens(now) <= now

    def _let_in(self, ticket: Ticket, now: float) -> Verdict:
        self._spread.started(self.places, now)
        self._running[ticket] = now
        if self.running == self.places:
            self._turnover.stirred(now)
        return ticket, None

    def _wait(self, ticket: Ticket, now: float) -> float | None:
        """Seconds until the ticket would have a place if it came now; None if nobody can tell."""
        return self._turnover.wait(self._queue.ahead_of(ticket), self.places, now)

    def _shed(self, ticket: Ticket, reason: str, wait: float | None) -> Verdict:
        self._shed_by[reason] += 1
        alone = self._share(ticket.key) > OVER_SHARE
        self._gone(ticket)
        self._turn = (self._turn + TURN) % 1
        later = min(
            max(UNKNOWN_WAIT if wait is None else wait, SHORTEST) * (1 + SPREAD * self._turn), LONGEST
        )
        if alone:
            told = f"this key asks more than its share while others wait, and this request {WHY[reason]}"
            return ticket, RateLimited(told, retry_after=later)
        told = f"more comes in than the LLM tier can take, and this request {WHY[reason]}"
        return ticket, Overloaded(told, retry_after=later)

    def _share(self, key: str) -> float:
        """Requests of the key that run or wait, in even shares of all; 1 if it is alone."""
        return self._present[key] * len(self._present) / self._present.total()

    def _gone(self, ticket: Ticket) -> None:
        self._present[ticket.key] -= 1
        if not self._present[ticket.key]:
            del self._present[ticket.key]
