"""The fallback chain: another model is asked when the LLM tier cannot begin an answer."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from business_api.errors import Overloaded, ServiceError, Unavailable
from business_api.exchange import Degradation, Prompt
from business_api.spending import upper_estimate
from business_api.upstream import Running, Upstream
from business_api.upstream.asked import Asked
from business_api.upstream.others import Others
from business_api.upstream.seats import Seat
from business_api.usage import Attempt

PRIMARY = "llm"
"""What the LLM tier is called beside its fallbacks."""
COME_BACK = 1.0
"""Seconds after which a full fallback may be asked again."""


@dataclass(frozen=True)
class Chain:
    """The LLM tier and its fallbacks, which are asked in this order.

    Who has no server in is asked last: its own watch finds out when it is back, not every question.
    `stood_in` counts who answered, `full` who had no seat free.
    """

    primary: Upstream
    fallbacks: Mapping[str, Upstream]
    stood_in: Counter[str] = field(default_factory=Counter)
    full: Counter[str] = field(default_factory=Counter)

    async def generate(self, prompt: Prompt, sampling: Mapping[str, Any], request_id: str) -> Running:
        """Start answering (the `Generate` port), whoever begins first. The caller must close what it gets.

        Raises what the LLM tier refuses, and what kept it from answering when no fallback did either;
        Overloaded when one of them would but has no seat free, and the LLM tier is away.
        """
        asked = self.primary.asked(prompt, sampling, request_id)
        others = Others({name: one for name, one in self.fallbacks.items() if self._fits(one, prompt)})
        if self.primary.pool.all_out and others.serving:
            asked.trail.append(Attempt(PRIMARY, "out", 0.0))
            running = await self._stood_in(asked, others)
            if running is None and self.primary.pool.all_out:
                _refuse(asked, others)
            return running or await self.primary.begin(asked)
        leaving = others.leaving(self.primary, asked)
        try:
            with leaving:
                return await self.primary.begin(replace(asked, leaving=leaving))
        except Unavailable as exc:
            if (running := await self._stood_in(asked, others, leaving.seat)) is not None:
                return running
            _refuse(asked, others)
            exc.attempts = tuple(asked.trail)
            raise

    async def _stood_in(self, asked: Asked, others: Others, seat: Seat | None = None) -> Running | None:
        """The answer of the first fallback that begins; None when none does, whatever they say.

        `seat` is one that was taken before.
        """
        too_long = (name for name in self.fallbacks if name not in others.left)
        asked.trail.extend(Attempt(name, "too_long", 0.0) for name in too_long)
        while (seat := seat or await others.seat(asked)) is not None:
            self._pass_over(others.before(seat), others, asked)
            name, fallback = others.pop(seat)
            own = fallback.asked(asked.prompt, asked.sampling, asked.request_id, until=asked.until)
            leaving = others.leaving(fallback, own)
            try:
                running = await _begun(fallback, replace(own, trail=asked.trail, leaving=leaving), seat)
            except ServiceError:
                seat = leaving.seat
                continue
            self.stood_in[name] += 1
            return running
        if asked.left > 0:
            self._pass_over(others.left, others, asked)
        return None

    def _pass_over(self, names: Iterable[str], others: Others, asked: Asked) -> None:
        """Note, once each, that these are not asked."""
        for name in names:
            full = others.left[name].seats.full
            passed = Attempt(name, "full" if full else "out", 0.0)
            if passed not in asked.trail:
                asked.trail.append(passed)
                self.full[name] += full

    def _fits(self, fallback: Upstream, prompt: Prompt) -> bool:
        """Whether it takes the prompt, which was filled for the context of the LLM tier."""
        settings = fallback.settings
        if settings.context_tokens >= self.primary.settings.context_tokens:
            return True
        tokens = upper_estimate(prompt.messages, settings.bytes_per_token) + prompt.max_tokens
        return tokens <= settings.context_tokens

    async def problem(self) -> str | None:
        """Why no answer could be had now, or None when one of the chain could give it."""
        others = self.fallbacks.values()
        found = await asyncio.gather(self.problem_of_primary(), *(one.problem() for one in others))
        if None in found:
            return None
        told = (f"{name}: {said}" for name, said in zip(self.fallbacks, found[1:], strict=True))
        return "; ".join((str(found[0]), *told))

    async def problem_of_primary(self) -> str | None:
        """Why the LLM tier could not answer now. One that is known to be out is not waited for."""
        pool = self.primary.pool
        if pool.all_out:
            return "; ".join(f"{name} is out: {why}" for name, why in pool.out().items())
        return await self.primary.problem()


async def _begun(fallback: Upstream, asked: Asked, seat: Seat) -> Running:
    """The answer of this fallback, whose seat it keeps. Raises ServiceError."""
    assert asked.leaving is not None
    try:
        with asked.leaving:
            running = await fallback.begin(asked)
    except BaseException:
        seat.leave()
        raise
    running.seat = seat
    running.degraded = (Degradation.FALLBACK_MODEL,)
    return running


def _refuse(asked: Asked, others: Others) -> None:
    """Raises Overloaded when nothing but a seat was wanting."""
    if asked.left > 0 and (full := others.serving):
        told = (
            f"the LLM tier does not answer, and {' and '.join(full)} in its place answers as much as it may"
        )
        refusal = Overloaded(told, retry_after=COME_BACK)
        refusal.attempts = tuple(asked.trail)
        raise refusal
