"""The fallback chain: another model is asked when the LLM tier cannot begin an answer."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
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
        asked = self.primary.asked(prompt, sampling, request_id)
        chain = {PRIMARY: self.primary, **self.fallbacks}
        order = sorted(chain, key=lambda name: chain[name].pool.all_out)
        if order[0] != PRIMARY:
            asked.trail.append(Attempt(PRIMARY, "out", 0.0))
        failure: Unavailable | None = None
        for name in order:
            last = name == order[-1]
            if name != PRIMARY:
                if (running := await self._stood_in(name, asked, last=last)) is not None:
                    return running
                continue
            try:
                return await self.primary.begin(asked if last else _passed_on(asked, self.primary))
            except Unavailable as exc:
                failure = exc
        assert failure is not None
        failure.attempts = tuple(asked.trail)
        raise failure

    async def _stood_in(self, name: str, asked: Asked, *, last: bool) -> Running | None:
        """The answer of a fallback; None when it cannot begin either, whatever it says."""
        fallback = self.fallbacks[name]
        own = fallback.asked(asked.prompt, asked.sampling, asked.request_id)
        own = replace(own, until=min(own.until, asked.until), trail=asked.trail)
        if not self._fits(fallback, asked.prompt):
            asked.trail.append(Attempt(name, "too_long", 0.0))
            return None
        try:
            running = await fallback.begin(own if last else _passed_on(own, fallback))
        except ServiceError:
            return None
        running.degraded = (Degradation.FALLBACK_MODEL,)
        self.stood_in[name] += 1
        return running

    def _fits(self, fallback: Upstream, prompt: Prompt) -> bool:
        """Whether it takes the prompt, which was filled for the context of the LLM tier."""
        settings = fallback.settings
        if settings.context_tokens >= self.primary.settings.context_tokens:
            return True
        tokens = upper_estimate(prompt.messages, settings.bytes_per_token) + prompt.max_tokens
        return tokens <= settings.context_tokens

    async def problem(self) -> str | None:
        """Why no answer could be had now, or None when one of the chain could give it."""
        found = await asyncio.gather(
            self.primary.problem(), *(one.problem() for one in self.fallbacks.values())
        )
        if None in found:
            return None
        own, *others = found
        told = (f"{name}: {said}" for name, said in zip(self.fallbacks, others, strict=True))
        return "; ".join((str(own), *told))


def _passed_on(asked: Asked, upstream: Upstream) -> Asked:
    """The same, to be begun while there is time for the next one: in half of what is left at most."""
    seconds = min(upstream.settings.fallback_after, asked.left / 2)
    return replace(asked, begin_by=time.monotonic() + seconds)
