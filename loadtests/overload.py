"""Overload in virtual time: open-loop callers, our gate, and a batching LLM server, as discrete events.

Deterministic: the same seed gives the same counts on any machine. The server is the simulated one
(`simulated_batching`), without its sockets.
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from business_api.gate import Gate, Rules, Verdict
from business_api.limiting import Bounds
from business_api.queueing import Ticket
from business_api.token_pace import ms_per_token
from loadtests.simulated_batching import Batching, Generation, Preset, presets

H100 = presets()["h100-8b"]
RULES = Rules(Bounds(start=64, least=4, most=1024, tolerated_ms=250, pace_ms=150), most_waiting=256)
"""The gate as the settings have it when nothing is set."""
FREE = Rules(Bounds(start=10**6, least=10**6, most=10**6, tolerated_ms=1e9), most_waiting=0)
"""No admission control: everything goes to the LLM server at once."""


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

    def good(self, slo: Slo) -> bool:
        """Whether it was answered within the objectives."""
        if self.first is None or self.done is None:
            return False
        return self.first - self.at <= slo.ttft and self.done - self.first <= slo.tpot * self.answer


@dataclass
class Run:
    """One simulated run. `patience` is the longest wait in our queue, `retrieval` the time before the LLM.

    `lag` is what the way to the LLM server takes for a request that is sent then. All in seconds. The server
    refuses what comes while `most_inside` requests wait or run in it.
    """

    rules: Rules
    callers: Sequence[Callers]
    seconds: float
    preset: Preset = H100
    most_inside: float = math.inf
    patience: float = 1.0
    retrieval: float = 0.02
    seed: int = 1
    lag: Callable[[float], float] = lambda now: 0.0
    on_second: Callable[["Run", float], None] = lambda run, now: None
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate = Gate(self.rules)
        self.batch = Batching(self.preset)
        self._inside: dict[Generation, Asked] = {}
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = itertools.count()
        self._busy = False
        self._opens = -1.0
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
        opens = self.gate.opens(now)
        if opens is not None and not now < self._opens <= opens:
            self._opens = opens
            self._at(opens, lambda later: self._tell(self.gate.admit(later), later))

    def _send(self, one: Asked, now: float) -> None:
        one.sent = now
        self._at(now + self.lag(now), lambda later: self._submit(one, later))

    def _submit(self, one: Asked, now: float) -> None:
        if len(self._inside) >= self.most_inside:
            one.status = 503
            self._tell(self.gate.observe(None, one.prompt, now), now)
            self._tell(self.gate.leave(one.ticket, now), now)
            return
        generation = Generation(one.prompt, one.answer)
        self._inside[generation] = one
        self.batch.submit(generation)
        if not self._busy:
            self._step(now)

    def _step(self, now: float) -> None:
        step = self.batch.step()
        self._busy = step is not None
        if step is not None:
            # what was said changes in later steps
            firsts = [one for one in step.speakers if one.said == 1]
            lasts = [one for one in step.speakers if one.over]
            self._at(now + step.seconds, lambda later: self._stepped(firsts, lasts, later))

    def _stepped(self, firsts: list[Generation], lasts: list[Generation], now: float) -> None:
        for one in map(self._inside.__getitem__, firsts):
            one.first = one.first or now
            self._tell(self.gate.observe((now - one.sent) * 1000, one.prompt, now), now)
        for one in map(self._inside.pop, lasts):
            one.done = now
            pace = ms_per_token(1000 * (now - (one.first or now)), one.answer)
            if pace is not None:
                self.gate.answered(one.ticket, pace, now)
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
