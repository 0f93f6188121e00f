"""How many generations the LLM servers take at once: a limit that learns from times to the first token.

A server that batches continuously is late with the first token because the prompt is long, or because others
wait ahead in its own queue. Only the second is a reason to send less. Prompt length is taken out by
regression, and what is left is compared with the best of the last rounds: the excess is the wait in the
server's queue. By Little's law, the share of its time that a request waits there is the share of all requests
that wait there, so

    capacity = in flight * (1 - excess / mean time in flight)

(the queue estimate of TCP Vegas, with the wait measured at the first token instead of the last). The limit
falls to the capacity when the excess is more than tolerated, and grows only while it is used. Has no clock.
"""

import statistics
from collections import deque
from typing import NamedTuple

import msgspec

ROUND = 16
"""Samples of a round, at least; each round ends in one decision."""
ROUND_SECONDS = 0.25
ROUNDS = 32
"""Rounds whose best level is what a first token takes when nothing waits ahead."""
GROWTH, FASTEST_GROWTH = 0.02, 0.1
"""Growth per round, as shares of the limit: after a cut, and at most."""
SPEED_UP = 1.25
"""Each round without a cut grows so many times as much as the one before it."""
USED = 0.9
"""Share of the limit that must be in flight before it may grow."""
SHARPEST_CUT = 0.5
REFUSED_CUT = 0.9
FUTILE = 2
"""Cuts in a row that bring no relief; then the wait is not of our making, and is the new normal."""
RELIEF = 0.25
"""Share of the expected relief that counts as one."""
MEMORY = 1000
"""Samples that the regression remembers."""
SPREAD = 50.0
"""Tokens; prompts that differ less say little about what a token costs."""


class Bounds(msgspec.Struct, frozen=True):
    """Where a limit starts, where it stays between, and the tolerated wait in the server's queue (ms).

    Half of what a first token takes by itself is tolerated too, if that is more.
    """

    start: int
    least: int
    most: int
    tolerated_ms: float


class Sample(NamedTuple):
    """A first token: when the request was sent (seconds), how long it took, tokens of its prompt."""

    sent: float
    ttft_ms: float
    prompt_tokens: int


class PromptCost:
    """Milliseconds that one more prompt token takes: regression of TTFT on length that forgets slowly."""

    def __init__(self) -> None:
        self._seen = 0
        self._tokens = self._ttft = self._variance = self._covariance = 0.0

    @property
    def per_token(self) -> float:
        """ms, never negative."""
        return max(0.0, self._covariance / (self._variance + SPREAD**2))

    def learn(self, sample: Sample) -> None:
        """Take one more sample into account."""
        self._seen += 1
        weight = 1 / min(self._seen, MEMORY)
        tokens, ttft = sample.prompt_tokens - self._tokens, sample.ttft_ms - self._ttft
        self._tokens += weight * tokens
        self._ttft += weight * ttft
        self._variance = (1 - weight) * (self._variance + weight * tokens * tokens)
        self._covariance = (1 - weight) * (self._covariance + weight * tokens * ttft)


class _Round(NamedTuple):
    """A round that has ended: since when, most in flight, the TTFT (ms) of its mean prompt (tokens)."""

    since: float
    in_flight: int
    ttft_ms: float
    prompt_tokens: float


class _Cut(NamedTuple):
    """The last cut: the level it was decided on, and the relief (ms) it should bring."""

    ttft_ms: float
    prompt_tokens: float
    relief_ms: float


class Limit:
    """The adaptive limit. `observe` every first token, `refused` when a server has no room."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._limit = float(bounds.start)
        self._cost = PromptCost()
        self._rounds: deque[_Round] = deque(maxlen=ROUNDS)
        self._samples: list[Sample] = []
        self._since = self._changed = float("-inf")
        self._peak = 0
        self._growth = FASTEST_GROWTH
        self._cut: _Cut | None = None
        self._futile = 0

    @property
    def places(self) -> int:
        """Generations that may be in flight now."""
        return int(self._limit)

    def observe(self, sample: Sample, now: float, in_flight: int, hold: float | None) -> None:
        """Learn from a first token that came `now`; `hold`: the mean time in flight (s), if it is known."""
        self._cost.learn(sample)
        if not self._samples and self._since == float("-inf"):
            self._since = sample.sent
        self._samples.append(sample)
        self._peak = max(self._peak, in_flight)
        fresh = sum(one.sent >= self._changed for one in self._samples)
        enough = fresh >= ROUND or len(self._samples) >= 2 * ROUND
        if enough and now - self._since >= ROUND_SECONDS:
            self._decide(self._ended_round(), now, hold, fresh=fresh >= ROUND)

    def refused(self, now: float, in_flight: int) -> None:
        """A server had no room: less from now on, unless the last cut has yet to take effect."""
        if in_flight <= self.places and now - self._changed >= ROUND_SECONDS:
            self._growth = GROWTH
            self._set(self._limit * REFUSED_CUT, now)

    def _ended_round(self) -> _Round:
        per_token = self._cost.per_token
        tokens = statistics.fmean(one.prompt_tokens for one in self._samples)
        rest = statistics.median(one.ttft_ms - per_token * one.prompt_tokens for one in self._samples)
        return _Round(self._since, self._peak, rest + per_token * tokens, tokens)

    def _decide(self, ended: _Round, now: float, hold: float | None, *, fresh: bool) -> None:
        sent = statistics.median(one.sent for one in self._samples)
        self._rounds.append(ended)
        if fresh:
            self._judge_cut(ended)
        best = min(map(self._rest, self._rounds))
        excess = self._rest(ended) - best
        alone = best + self._cost.per_token * ended.prompt_tokens
        if excess > max(self._bounds.tolerated_ms, alone / 2):
            self._growth = GROWTH
            self._fall(ended, excess, self._in_flight_at(sent), hold, now)
        elif fresh and ended.in_flight >= USED * self.places:
            self._set(self._limit + max(1, self._limit * self._growth), now)
            self._growth = min(self._growth * SPEED_UP, FASTEST_GROWTH)
        self._samples, self._since, self._peak = [], now, 0

    def _rest(self, ended: "_Round | _Cut") -> float:
        """What a level would be without its prompts, in ms."""
        return ended.ttft_ms - self._cost.per_token * ended.prompt_tokens

    def _in_flight_at(self, moment: float) -> int:
        """Most in flight in the round of that moment; in the first one that is known if it was earlier."""
        return next(
            (r.in_flight for r in reversed(self._rounds) if r.since <= moment), self._rounds[0].in_flight
        )

    def _fall(self, ended: _Round, excess_ms: float, in_flight: int, hold: float | None, now: float) -> None:
        if hold is None:
            return
        waits = min(excess_ms / 1000 / hold, 1.0)
        capacity = max(in_flight * (1 - waits), self._limit * SHARPEST_CUT)
        if capacity < self._limit:
            relief = (1 - capacity / self._limit) * hold * 1000
            self._cut = _Cut(ended.ttft_ms, ended.prompt_tokens, relief)
            self._set(capacity, now)

    def _judge_cut(self, ended: _Round) -> None:
        """Whether the last cut brought relief. If cuts do not, the past no longer says what is normal."""
        if self._cut is None:
            return
        relieved = self._rest(self._cut) - self._rest(ended) >= RELIEF * self._cut.relief_ms
        self._futile = 0 if relieved else self._futile + 1
        self._cut = None
        if self._futile >= FUTILE:
            self._futile = 0
            self._rounds.clear()
            self._rounds.append(ended)

    def _set(self, limit: float, now: float) -> None:
        self._limit = min(max(limit, self._bounds.least), self._bounds.most)
        self._changed = now
