"""Overload in virtual time: open-loop callers, our gate, and a batching LLM server, as discrete events.

Deterministic: the same seed gives the same counts on any machine. The server is the linear model of a batch
that is bound by memory bandwidth: a step takes `step_ms`, `step_ms_per_answer` for each answer in it, and the
time to compute the prompts that are let into it.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from business_api.gate import Gate, Rules, Verdict
from business_api.limiting import Bounds
from business_api.queueing import Ticket

FREE = Rules(Bounds(start=10**6, least=10**6, most=10**6, tolerated_ms=1e9), most_waiting=0)
"""No admission control: everything goes to the LLM server at once."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """An LLM server. The defaults are those of an 8B model on an H100 (loadtests/simulated_llm.toml)."""

    step_ms: float = 4.2
    step_ms_per_answer: float = 0.0394
    prefill_tokens_per_second: float = 24600
    kv_tokens: int = 403_000
    max_num_seqs: int = 256
    max_batched_tokens: int = 8192
    max_num_queued_reqs: int = 10**9


class Slo(msgspec.Struct, frozen=True):
    """What makes an answer good: first token within `ttft` seconds of asking, then `tpot` seconds a token."""

    ttft: float = 2.0
    tpot: float = 0.06


class Callers(msgspec.Struct, frozen=True, kw_only=True):
    """Callers with one key: requests per second (Poisson), mean tokens of prompts and answers (lognormal)."""

    rate: float
    key: str = "all"
    rank: int = 1
    prompt: float = 400
    answer: float = 200
    begin: float = 0.0
    end: float = 1e9


@dataclass(eq=False, slots=True)
class Asked:
    """One request and what became of it; times in seconds."""

    key: str
    at: float
    prompt: int
    answer: int
    ticket: Ticket
    sent: float = 0.0
    first: float | None = None
    done: float | None = None
    shed: float | None = None
    status: int = 0
    retry_after: float | None = None
    uncomputed: int = 0

    def good(self, slo: Slo) -> bool:
        """Whether it was answered within the objectives."""
        if self.first is None or self.done is None:
            return False
        return self.first - self.at <= slo.ttft and self.done - self.first <= slo.tpot * self.answer


class Batch:
    """The batching server: a queue, prompts being computed, answers being made."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.waiting: deque[Asked] = deque()
        self._prefilling: deque[Asked] = deque()
        self._ending: list[tuple[int, int, Asked]] = []
        self._steps = itertools.count()
        self._order = itertools.count()
        self._kv = 0

    @property
    def running(self) -> int:
        """Answers in the batch."""
        return len(self._prefilling) + len(self._ending)

    def submit(self, one: Asked) -> bool:
        """Queue it; False if as many wait or run as may."""
        if len(self.waiting) + self.running >= self.server.max_num_queued_reqs:
            return False
        self.waiting.append(one)
        return True

    def step(self) -> tuple[float, list[Asked], list[Asked]] | None:
        """The next pass: how many seconds it takes, who says a first token at its end, who its last."""
        number, decoding = next(self._steps), len(self._ending)
        budget = left = max(0, self.server.max_batched_tokens - decoding)
        firsts = []
        while left and self._may_prefill():
            one = self._prefilling[0]
            computed = min(one.uncomputed, left)
            one.uncomputed -= computed
            left -= computed
            if not one.uncomputed:
                firsts.append(self._prefilling.popleft())
        if not decoding and left == budget:
            return None
        for one in firsts:
            heapq.heappush(self._ending, (number + one.answer - 1, next(self._order), one))
        lasts = []
        while self._ending and self._ending[0][0] <= number:
            lasts.append(heapq.heappop(self._ending)[2])
            self._kv -= lasts[-1].prompt + lasts[-1].answer
        server = self.server
        seconds = (server.step_ms + server.step_ms_per_answer * decoding) / 1000
        return seconds + (budget - left) / server.prefill_tokens_per_second, firsts, lasts

    def _may_prefill(self) -> bool:
        """Whether there is a prompt to compute, taking the oldest from the queue if it fits."""
        if self._prefilling:
            return True
        if not self.waiting or self.running >= self.server.max_num_seqs:
            return False
        size = self.waiting[0].prompt + self.waiting[0].answer
        if self._kv + size > self.server.kv_tokens and self.running:
            return False
        self._kv += size
        self._prefilling.append(self.waiting.popleft())
        return True


@dataclass
class Run:
    """One simulated run. `patience` is the longest wait in our queue, `retrieval` the time before the LLM.

    `lag` is what the way to the LLM server takes for a request that is sent then. All in seconds.
    """

    rules: Rules
    callers: Sequence[Callers]
    seconds: float
    server: Server = field(default_factory=Server)
    patience: float = 1.0
    retrieval: float = 0.02
    seed: int = 1
    lag: Callable[[float], float] = lambda now: 0.0
    on_second: Callable[["Run", float], None] = lambda run, now: None
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate = Gate(self.rules)
        self.batch = Batch(self.server)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = itertools.count()
        self._busy = False
        self._of: dict[Ticket, Asked] = {}

    def play(self) -> "Run":
        """Run to the end and, without new requests, until all is over; returns itself."""
        for place, callers in enumerate(self.callers):
            self._come(_requests(callers, self.seconds, self.patience, random.Random(f"{self.seed}/{place}")))
        for second in range(int(self.seconds)):
            self._at(second, lambda now: self.on_second(self, now))
        while self._events:
            now, _, happens = heapq.heappop(self._events)
            happens(now)
        return self

    def _at(self, when: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), happens))

    def _come(self, requests: Iterator[Asked]) -> None:
        one = next(requests, None)
        if one is None:
            return

        def arrives(now: float) -> None:
            self.asked.append(one)
            self._of[one.ticket] = one
            self._at(one.ticket.deadline, lambda late: self._tell(self.gate.expire(one.ticket, late), late))
            self._tell(self.gate.arrive(one.ticket, now), now)
            self._come(requests)

        self._at(one.at, arrives)

    def _tell(self, verdicts: list[Verdict], now: float) -> None:
        for ticket, refusal in verdicts:
            one = self._of[ticket]
            if refusal is None:
                self._at(now + self.retrieval, lambda later, one=one: self._send(one, later))  # type: ignore[misc]
            else:
                one.shed, one.status, one.retry_after = now, refusal.status, refusal.retry_after

    def _send(self, one: Asked, now: float) -> None:
        one.sent, one.uncomputed = now, one.prompt
        self._at(now + self.lag(now), lambda later: self._submit(one, later))

    def _submit(self, one: Asked, now: float) -> None:
        if not self.batch.submit(one):
            one.status = 503
            self._tell(self.gate.observe(None, one.prompt, now), now)
            self._tell(self.gate.leave(one.ticket, now), now)
        elif not self._busy:
            self._step(now)

    def _step(self, now: float) -> None:
        taken = self.batch.step()
        self._busy = taken is not None
        if taken is not None:
            seconds, firsts, lasts = taken
            self._at(now + seconds, lambda later: self._stepped(firsts, lasts, later))

    def _stepped(self, firsts: list[Asked], lasts: list[Asked], now: float) -> None:
        for one in firsts:
            one.first = now
            self._tell(self.gate.observe((now - one.sent) * 1000, one.prompt, now), now)
        for one in lasts:
            one.done = now
            self._tell(self.gate.leave(one.ticket, now), now)
        self._step(now)

    def goodput(self, slo: Slo, since: float = 0.0, key: str | None = None) -> float:
        """Good answers per second of those asked for from `since` on."""
        return sum(one.good(slo) for one in self._counted(since, key)) / (self.seconds - since)

    def attainment(self, slo: Slo, since: float = 0.0, key: str | None = None) -> float:
        """Good answers as a share of all that was asked for, whatever became of it."""
        counted = self._counted(since, key)
        return sum(one.good(slo) for one in counted) / len(counted)

    def _counted(self, since: float, key: str | None) -> list[Asked]:
        return [one for one in self.asked if one.at >= since and key in (None, one.key)]


def _requests(callers: Callers, seconds: float, patience: float, chance: random.Random) -> Iterator[Asked]:
    at = callers.begin
    while True:
        at += chance.expovariate(callers.rate)
        if at >= min(seconds, callers.end):
            return
        prompt, answer = _tokens(callers.prompt, chance), _tokens(callers.answer, chance)
        # what a caller asks for at most is known before, how much is said is not
        ticket = Ticket(callers.key, callers.rank, prompt + 2 * callers.answer, at, at + patience)
        yield Asked(callers.key, at, prompt, answer, ticket)


def _tokens(mean: float, chance: random.Random) -> int:
    """Lognormal with this mean and a spread (sigma) of 0.6."""
    return max(1, round(mean * chance.lognormvariate(-0.18, 0.6)))
