"""The fallback chain: another model is asked when the LLM tier cannot begin an answer."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from business_api.errors import Overloaded, ServiceError, Unavailable
from business_api.exchange import Degradation, Prompt
from business_api.spending import upper_estimate
from business_api.upstream import Running, Upstream
from business_api.upstream.asked import Asked
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
        Overloaded when one of them would but has no seat free.
        """
        others = [name for name, one in self.fallbacks.items() if self._fits(one, prompt)]
        asked = self.primary.asked(prompt, sampling, request_id)
        if self.primary.pool.all_out and not all(self.fallbacks[name].pool.all_out for name in others):
            asked.trail.append(Attempt(PRIMARY, "out", 0.0))
            return await self._stood_in(asked, others) or await self.primary.begin(asked)
        try:
            with self._counted_on(others) as passed_on:
                return await self.primary.begin(self.primary.soon(asked) if passed_on else asked)
        except Unavailable as exc:
            if (running := await self._stood_in(asked, others)) is not None:
                return running
            exc.attempts = tuple(asked.trail)
            raise

    async def _stood_in(self, asked: Asked, others: Sequence[str]) -> Running | None:
        """The answer of the first of these fallbacks that begins; None when none does, whatever they say.

        Raises Overloaded when one with a server that is in has no seat free.
        """
        asked.trail.extend(Attempt(name, "too_long", 0.0) for name in self.fallbacks if name not in others)
        order, full = sorted(others, key=lambda name: self.fallbacks[name].pool.all_out), list[str]()
        for number, name in enumerate(order, 1):
            fallback = self.fallbacks[name]
            if fallback.seats.full:
                asked.trail.append(Attempt(name, "full", 0.0))
                self.full[name] += 1
                full += [] if fallback.pool.all_out else [name]
            elif full and fallback.pool.all_out:  # nobody waits for it who may come again soon
                asked.trail.append(Attempt(name, "out", 0.0))
            elif (running := await self._begun(fallback, asked, order[number:])) is not None:
                self.stood_in[name] += 1
                return running
        if full and asked.left > 0:
            raise _full(full, asked)
        return None

    async def _begun(self, fallback: Upstream, asked: Asked, following: Sequence[str]) -> Running | None:
        own = fallback.asked(asked.prompt, asked.sampling, asked.request_id, until=asked.until)
        own = replace(own, trail=asked.trail)
        try:
            with self._counted_on(following) as passed_on:
                running = await fallback.begin(fallback.soon(own) if passed_on else own)
        except ServiceError:
            return None
        running.degraded = (Degradation.FALLBACK_MODEL,)
        return running

    @contextmanager
    def _counted_on(self, names: Sequence[str]) -> Iterator[bool]:
        """Whether one of these has a seat to spare for who is not answered soon, and counts on it meanwhile.

        Of a hundred who wait for a slow tier, a fallback with one seat is a reason to hurry for one.
        """
        known = (self.fallbacks[name] for name in names)
        seats = next((one.seats for one in known if one.seats.spare and not one.pool.all_out), None)
        if seats is None:
            yield False
            return
        seats.wanted += 1
        try:
            yield True
        finally:
            seats.wanted -= 1

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


def _full(names: Sequence[str], asked: Asked) -> Overloaded:
    """What is told when a fallback would answer: the LLM tier is not asked again, which is away."""
    told = f"the LLM tier is away, and {' and '.join(names)} in its place answers as much as it may"
    refusal = Overloaded(told, retry_after=COME_BACK)
    refusal.attempts = tuple(asked.trail)
    return refusal
