"""An open-loop load: what is asked when, what became of each question, and how much of it was good."""

import random
from collections.abc import Sequence
from typing import Literal

import msgspec

FIRST_SERIAL = 10_000_000
Ended = Literal["whole", "flagged", "truncated", "refused", "broken", "left", "unanswered"]


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """Callers with one API key who ask `rate` times a second (Poisson)."""

    rate: float
    key: str = ""


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of `url` for `seconds`. `{serial}` in the body becomes a number of eight digits.

    Answers may come for `patience` seconds after the last question; then all callers hang up. With `leave`,
    each caller hangs up after a random time between the two (seconds). With `texts` the text of each answer
    is kept.
    """

    url: str
    body: msgspec.Raw
    flows: tuple[Flow, ...]
    seconds: float
    patience: float = 10.0
    leave: tuple[float, float] | None = None
    texts: bool = False
    seed: int = 1


class Asked(msgspec.Struct, kw_only=True, array_like=True):
    """One question: `due` in seconds since the beginning, sent `lag_ms` late; other times in ms since due.
    `kept`: sent on a connection that had been idle.

    | ended | |
    |---|---|
    | whole | a known finish_reason, and the end of the stream |
    | flagged | 200, then an error that says so |
    | truncated | 200 and an end in good order, but no finish_reason: the caller cannot tell |
    | refused | another status |
    | broken | the connection ended first |
    | left | the caller hung up |
    | unanswered | not over when the patience was |
    """

    flow: int
    serial: int
    due: float
    lag_ms: float = 0.0
    status: int = 0
    ended: Ended = "unanswered"
    ttft_ms: float = 0.0
    end_ms: float = 0.0
    text: str = ""
    trail: tuple[str, ...] = ()
    resumed: bool = False
    kept: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """All that was asked, in order; `began` is unix time."""

    began: float
    asked: list[Asked]


def drawn(offered: Offered) -> list[Asked]:
    """The questions in the order in which they are due."""
    chance, found = random.Random(offered.seed), []
    for number, flow in enumerate(offered.flows):
        due = chance.expovariate(flow.rate)
        while due < offered.seconds:
            found.append((due, number))
            due += chance.expovariate(flow.rate)
    return [
        Asked(flow=number, serial=FIRST_SERIAL + place, due=due)
        for place, (due, number) in enumerate(sorted(found))
    ]


def ending_of(status: int, body: bytes) -> Ended:
    """How an answer with an end in good order ended."""
    if status != 200:
        return "refused"
    if b'data: {"error"' in body:
        return "flagged"
    finished = b'"finish_reason":"' in body and b'"finish_reason":"abort"' not in body
    return "whole" if finished and (b"data: [DONE]" in body or b"data: " not in body) else "truncated"


class Slo(msgspec.Struct, frozen=True):
    """What makes an answer good, in milliseconds since the question was due."""

    ttft_ms: float
    total_ms: float

    def met(self, asked: Asked) -> bool:
        """Whether the answer is whole and was in time."""
        return asked.ended == "whole" and asked.ttft_ms <= self.ttft_ms and asked.end_ms <= self.total_ms


def attainment(asked: Sequence[Asked], slo: Slo) -> float:
    """Good answers by all questions, whatever became of them. Raises ZeroDivisionError for none."""
    return sum(map(slo.met, asked)) / len(asked)


def goodput_of(asked: Sequence[Asked], slo: Slo, since: float, until: float) -> float:
    """Good answers a second, of those that ended between these seconds."""
    ended = (one for one in asked if since <= one.due + one.end_ms / 1000 < until)
    return sum(map(slo.met, ended)) / (until - since)


def percentile(figures: Sequence[float], share: float) -> float:
    """By nearest rank; 0 of nothing."""
    ordered = sorted(figures)
    return ordered[int(share * (len(ordered) - 1) + 0.5)] if ordered else 0.0


def lag(outcome: Outcome) -> float:
    """How late questions were sent, in ms, at the 99th percentile: beyond a bound the run is void."""
    return percentile([one.lag_ms for one in outcome.asked if one.lag_ms], 0.99)
