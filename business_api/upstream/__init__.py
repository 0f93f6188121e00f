"""Talks to the LLM tier: several servers, deadlines, the first-delta gate, retries, the true success test.

`Upstream.generate` returns once the first real content has arrived. Up to there a failure is mended by
another attempt, or is an exception with an HTTP status; nothing was sent to the caller yet. After it a plain
answer whose server dies is gone on with by another one. `[DONE]` is not success: vLLM sends it after aborts
and errors too. Success is a known finish_reason and usage.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from business_api.deadlines import caller_deadline
from business_api.errors import Overloaded, UpstreamTimeout
from business_api.exchange import Prompt
from business_api.settings import LlmSettings
from business_api.transport import Transport
from business_api.upstream.addresses import addresses_of
from business_api.upstream.asked import Asked
from business_api.upstream.asking import Asking
from business_api.upstream.pool import Pool
from business_api.upstream.running import Running
from business_api.upstream.seats import Seats
from business_api.upstream.serving import problem_of
from business_api.upstream.watching import Watch

__all__ = ["Running", "Upstream"]


Observe = Callable[[float | None, int], None]
"""(ms to the first token, tokens of the prompt): told of each request; None of one that found no room."""


class Upstream:
    """The LLM tier: one OpenAI-compatible server, or a pool of them."""

    def __init__(
        self,
        transport: Transport | Pool,
        settings: LlmSettings,
        observe: Observe = lambda ttft_ms, tokens: None,
    ) -> None:
        self.settings, self._observe = settings, observe
        self.pool = transport if isinstance(transport, Pool) else Pool.single(transport, settings)
        self.seats = Seats(settings.max_in_flight)
        self._asking = Asking(self.pool, settings)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: LlmSettings,
        observe: Observe = lambda ttft_ms, tokens: None,
        *,
        prefix: str = "",
        elsewhere: bool = False,
    ) -> AsyncIterator["Upstream"]:
        """The tier that the settings name, watched and probed until it is closed.

        Names of its servers begin with `prefix`; `elsewhere`: another tier can be asked in place of it.
        Raises UpstreamUnavailable when the name of the servers cannot be resolved.
        """
        pool = Pool.open(await addresses_of(settings), settings, prefix)
        watch = asyncio.create_task(Watch(pool, settings, elsewhere=elsewhere).run())
        try:
            yield cls(pool, settings, observe)
        finally:
            watch.cancel()
            await asyncio.wait((watch,))
            await pool.aclose()

    async def generate(self, prompt: Prompt, sampling: Mapping[str, Any], request_id: str) -> Running:
        """Start answering (the `Generate` port). The caller must close what it gets."""
        return await self.begin(self.asked(prompt, sampling, request_id))

    async def begin(self, asked: Asked) -> Running:
        """Start answering what `asked` of this tier made, or the like. The caller must close what it gets."""
        began = time.monotonic()
        try:
            stream = await self._asking.begin(asked)
        except Overloaded:
            self._observe(None, int(asked.prompt_tokens))
            raise
        except UpstreamTimeout:
            if not self.pool.silent_since(began):  # a full server goes on with others, a dead one does not
                self._observe((time.monotonic() - began) * 1000, int(asked.prompt_tokens))
            raise
        self._observe(stream.ttft_ms, int(asked.prompt_tokens))
        return Running(self._asking, asked, stream, resumable=self.settings.resume == "auto")

    def asked(
        self,
        prompt: Prompt,
        sampling: Mapping[str, Any],
        request_id: str,
        *,
        until: float = math.inf,
    ) -> Asked:
        """What is asked of this tier from now on, with its deadlines.

        `until` is one more deadline of the whole answer.
        """
        size, now = sum(len(message.content or "") for message in prompt.messages), time.monotonic()
        until = min(caller_deadline(), until, now + self.settings.total_deadline)
        return Asked(
            prompt,
            sampling,
            request_id,
            until=until,
            prompt_tokens=size / self.settings.bytes_per_token,
            expected_tokens=prompt.max_tokens,
        )

    async def problem(self) -> str | None:
        """Why no answer could be had now, or None when one of the servers answers."""
        replicas = self.pool.replicas
        looks = [asyncio.create_task(problem_of(replica, self.settings)) for replica in replicas]
        try:
            for look in asyncio.as_completed(looks):
                if await look is None:
                    return None
        finally:
            for one in looks:
                one.cancel()
        found = [one.result() for one in looks]
        if len(found) == 1:
            return found[0]
        told = (f"{replica.name}: {said}" for replica, said in zip(replicas, found, strict=True))
        return "no LLM server answers: " + "; ".join(told)
