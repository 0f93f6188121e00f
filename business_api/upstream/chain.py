"""The fallback chain: another model is asked when the LLM tier cannot begin an answer."""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from business_api.errors import ServiceError, Unavailable
from business_api.exchange import Degradation, Prompt
from business_api.spending import upper_estimate
from business_api.upstream import Running, Upstream
from business_api.upstream.asked import Asked
from business_api.usage import Attempt

PRIMARY = "llm"
"""What the LLM tier is called beside its fallbacks."""


@dataclass(frozen=True)
class Chain:
    """The LLM tier and its fallbacks, which are asked in this order; `stood_in` counts who did.

    Who has no server in is asked last: its own watch finds out when it is back, not every question.
    """

    primary: Upstream
    fallbacks: Mapping[str, Upstream]
    stood_in: Counter[str]

    async def generate(self, prompt: Prompt, sampling: Mapping[str, Any], request_id: str) -> Running:
        """Start answering (the `Generate` port), whoever begins first. The caller must close what it gets.

        Raises what the LLM tier refuses, and what kept it from answering when no fallback did either.
        """
        others = [name for name, one in self.fallbacks.items() if self._fits(one, prompt)]
        asked = self.primary.asked(prompt, sampling, request_id, passed_on=bool(others))
        if self.primary.pool.all_out and not all(self.fallbacks[name].pool.all_out for name in others):
            asked.trail.append(Attempt(PRIMARY, "out", 0.0))
            running = await self._stood_in(asked, others)
            return running or await self.primary.begin(replace(asked, begin_by=math.inf))
        try:
            return await self.primary.begin(asked)
        except Unavailable as exc:
            if (running := await self._stood_in(asked, others)) is not None:
                return running
            exc.attempts = tuple(asked.trail)
            raise

    async def _stood_in(self, asked: Asked, others: Sequence[str]) -> Running | None:
        """The answer of the first of these fallbacks that begins; None when none does, whatever they say."""
        asked.trail.extend(Attempt(name, "too_long", 0.0) for name in self.fallbacks if name not in others)
        order = sorted(others, key=lambda name: self.fallbacks[name].pool.all_out)
        for name in order:
            fallback = self.fallbacks[name]
            own = fallback.asked(
                asked.prompt, asked.sampling, asked.request_id, until=asked.until, passed_on=name != order[-1]
            )
            try:
                running = await fallback.begin(replace(own, trail=asked.trail))
            except ServiceError:
                continue
            running.degraded = (Degradation.FALLBACK_MODEL,)
            self.stood_in[name] += 1
            return running
        return None

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
