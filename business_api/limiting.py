"""How many generations the LLM servers take at once: a limit that learns from times to the first token.

A server that batches continuously is late with the first token because the prompt is long, or because others
wait ahead in its own queue. Only the second is a reason to send less. Prompt length is taken out by
regression, and the mean of what is left is compared with the best of the last rounds: the excess is the mean
wait in the server's queue. By Little's law, the share of its time that a request waits there is the share of
all requests that wait there, so

    capacity = in flight * (1 - excess / mean time in flight)

(the queue estimate of TCP Vegas, with the wait measured at the first token instead of the last). The limit
falls to the capacity when the excess is more than tolerated, and grows only while it is used. Has no clock.
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from business_api.prompt_cost import PromptCost, Sample
from business_api.token_pace import Answered, TokenPace

ROUND = 16
"""Samples of a round, at least; each round ends in one decision."""
ROUND_SECONDS = 0.25
ROUNDS = 32
"""Rounds whose best level is what a first token takes when nothing waits ahead."""
TOLERATED = 0.1
"""Share of its time in flight that a request may wait in the server's queue, where the setting is more: such
a queue is as long as it must be to keep the server busy between an end and the next start."""
GROWTH, CAREFUL_GROWTH = 0.1, 0.02
"""Growth per round, as shares of the limit; careful near the capacity that was last met, or
as the wait in the server's queue comes near to what is tolerated."""
NEAR = (0.8, 1.1)
"""Shares of that capacity between which the limit is near it."""
USED = 0.9
"""Share of the limit that must be in flight before it may grow."""
SHARPEST_CUT = 0.5
REFUSED_CUT = 0.9
VAIN = 0.6, 0.25
"""A limit that fell to so much of itself must have brought the excess down as far, or nearly so. If not, the
wait is not of our making: half as many requests never wait more than half as long in a queue."""


class Bounds(msgspec.Struct, frozen=True):
    """Where a limit starts, where it stays between, what is tolerated.

    `tolerated_ms` is the wait in the server's queue. Where answers are short it is TOLERATED; half of what a
    first token takes by itself always is tolerated. `pace_ms` is the time of each further token.
    """

    start: int
    least: int
    most: int
    tolerated_ms: float
    pace_ms: float = math.inf


class _Round(NamedTuple):
    """A round that has ended: since when, most in flight, and its level: mean TTFT, mean prompt (tokens).

    `error_ms` is the standard error of that.
    """

    since: float
    in_flight: int
    ttft_ms: float
    error_ms: float
    prompt_tokens: float


@dataclass
class _Trouble:
    """What a series of cuts began with: the limit, the highest excess (ms) since then, rounds since then."""

    limit: float
    excess_ms: float = 0.0
    rounds: int = 0

    def in_vain(self, limit: float, excess_ms: float) -> bool:
        """Whether the cuts so far did not help, by what a round sent after them met."""
        left = limit / self.limit
        return left <= VAIN[0] and excess_ms > (left + VAIN[1]) * self.excess_ms


class Limit:
    """The adaptive limit. `observe` first tokens, `answered` whole answers, `refused` for want of room."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._limit = float(bounds.start)
        self._cost = PromptCost()
        self._rounds: deque[_Round] = deque(maxlen=ROUNDS)
        self._samples: list[Sample] = []
        self._since = self._changed = float("-inf")
        self._peak = self._fresh = 0
        self._capacity = self._full = float("inf")
        self._remembered = 0
        self._answers = True
        self._trouble: _Trouble | None = None
        self._pace = TokenPace(bounds.pace_ms)

    @property
    def places(self) -> int:
        """Generations that may be in flight now."""
        return int(self._limit)

    def observe(self, sample: Sample, now: float, in_flight: int, hold: float | None) -> None:
        """Learn from a first token that came `now`; `hold`: the mean time in flight (s), if it is known."""
        if hold is not None:
            # far beyond the others is a server that hangs, not a queue that all wait in
            longest = 2 * self._cost.typical_ms + hold * 1000
            sample = sample._replace(ttft_ms=min(sample.ttft_ms, longest))
        self._cost.learn(sample)
        self._answers = True
        if not self._samples and self._since == float("-inf"):
            self._since = sample.sent
        self._samples.append(sample)
        self._peak = max(self._peak, in_flight)
        self._fresh += sample.sent >= self._changed
        enough = self._fresh >= ROUND or len(self._samples) >= 2 * ROUND
        if enough and now - self._since >= ROUND_SECONDS:
            self._decide(self._ended_round(), now, hold, fresh=self._fresh >= ROUND)

    def answered(self, answered: Answered, now: float, in_flight: int) -> None:
        """Learn from an answer that has ended whole."""
        share = self._pace.observe(answered, now, in_flight)
        if share is not None:
            self._set(min(self._limit, in_flight) * share, now)

    def refused(self, now: float, in_flight: int) -> None:
        """A server had no room: less from now on, unless the last cut has yet to take effect.

        For twice ROUNDS the limit stays below what was in flight. A refusal says nothing of room when no more
        than the least was in flight, or when nobody has been answered since the last cut: the server is away.
        """
        if self._answers and self._bounds.least < in_flight <= self.places:
            self._answers = False
            self._capacity = self._limit * REFUSED_CUT
            self._full, self._remembered = in_flight - 1, 2 * ROUNDS
            self._set(self._capacity, now)

    def _ended_round(self) -> _Round:
        per_token = self._cost.per_token
        tokens = statistics.fmean(one.prompt_tokens for one in self._samples)
        rests = [one.ttft_ms - per_token * one.prompt_tokens for one in self._samples]
        level = statistics.fmean(rests)
        error = math.sqrt(sum((rest - level) ** 2 for rest in rests)) / len(rests)
        return _Round(self._since, self._peak, level + per_token * tokens, error, tokens)

    def _decide(self, ended: _Round, now: float, hold: float | None, *, fresh: bool) -> None:
        sent = statistics.median(one.sent for one in self._samples)
        self._rounds.append(ended)
        self._age()
        best = min(map(self._rest, self._rounds))
        excess = self._rest(ended) - best
        alone = best + self._cost.per_token * ended.prompt_tokens
        queue = min(self._bounds.tolerated_ms, TOLERATED * 1000 * (hold or math.inf))
        tolerated = max(queue, alone / 2)
        if excess - ended.error_ms > tolerated:
            self._congested(excess, self._in_flight_at(sent), hold, now, fresh=fresh)
        elif fresh and ended.in_flight >= USED * self.places and not self._pace.full:
            self._grow(1 - excess / tolerated, now)
        self._samples, self._since, self._peak, self._fresh = [], now, 0, 0

    def _grow(self, room: float, now: float) -> None:
        if NEAR[0] <= self._limit / self._capacity <= NEAR[1]:
            more = self._limit * CAREFUL_GROWTH
        else:
            more = max(1, self._limit * CAREFUL_GROWTH, self._limit * GROWTH * room)
        self._set(self._limit + more, now)

    def _age(self) -> None:
        """Forget a refusal and a series of cuts that lie back far enough."""
        self._remembered -= 1
        if not self._remembered:
            self._full = float("inf")
        if (trouble := self._trouble) is not None:
            trouble.rounds += 1
            if trouble.rounds > ROUNDS or self._limit >= USED * trouble.limit:
                self._trouble = None

    def _rest(self, ended: _Round) -> float:
        """What a level would be without its prompts, in ms."""
        return ended.ttft_ms - self._cost.per_token * ended.prompt_tokens

    def _in_flight_at(self, moment: float) -> int:
        """Most in flight in the round of that moment; in the first one that is known if it was earlier."""
        return next(
            (r.in_flight for r in reversed(self._rounds) if r.since <= moment), self._rounds[0].in_flight
        )

    def _congested(
        self, excess_ms: float, in_flight: int, hold: float | None, now: float, *, fresh: bool
    ) -> None:
        """Fall to the capacity; or go back to where the cuts began, if they are in vain."""
        if hold is None:
            return
        trouble = self._trouble = self._trouble or _Trouble(self._limit)
        if fresh and trouble.in_vain(self._limit, excess_ms):
            self._trouble = None
            self._rounds = deque([self._rounds[-1]], ROUNDS)
            self._set(trouble.limit, now)
            return
        trouble.excess_ms = max(trouble.excess_ms, excess_ms)
        capacity = in_flight * max(1 - excess_ms / 1000 / hold, SHARPEST_CUT)
        if capacity < self._limit:
            self._capacity = capacity
            self._set(capacity, now)

    def _set(self, limit: float, now: float) -> None:
        self._limit = min(max(min(limit, self._full), self._bounds.least), self._bounds.most)
        self._changed, self._fresh = now, 0
