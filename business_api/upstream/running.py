"""An answer under way: its deltas, and how it goes on when its replica dies in the middle of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import msgspec

from business_api.arrivals import Rest, Take
from business_api.errors import ServiceError, Unavailable
from business_api.exchange import Degradation, Delta
from business_api.upstream.asked import Asked
from business_api.upstream.asking import Asking
from business_api.upstream.seam import Seam
from business_api.upstream.seats import Seat
from business_api.upstream.stream import Stream
from business_api.usage import Attempt, Usage

MOST_RESUMES = 3
"""So often an answer may lose its replica."""
NOTHING = Delta()


class Running:
    """A running answer (the `Generation` of exchange.py). Made by Upstream.generate.

    With `resumable` an answer of plain text whose replica dies is gone on with by another one, from the text
    that was said; `degraded` names it then. `seat` is left when it is closed.
    """

    def __init__(self, asking: Asking, asked: Asked, stream: Stream, *, resumable: bool) -> None:
        self._asking, self._asked, self._stream = asking, asked, stream
        self._resumable = resumable and asked.plain
        self._resumes = 0
        self._batches: list[Sequence[Delta]] = []
        self._tokens_before = 0
        self._seam: Seam | None = None
        self.ttft_ms = stream.ttft_ms
        self.model = stream.told.model
        self.fingerprint = stream.told.fingerprint
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.degraded: tuple[Degradation, ...] = ()
        self.seat: Seat | None = None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The trail so far; of an answer still under way as if it were given up now."""
        trail = tuple(self._asked.trail)
        return (*trail, self._stream.attempt("abandoned")) if self._stream.under_way else trail

    async def relay(self, take: Take[Sequence[Delta]]) -> None:
        """See Generation. When the replica dies the answer is gone on with, if it may be."""
        arrive = self._arriving(take)
        going_on = True
        while going_on:
            stream = self._stream
            stream.taken_up()
            stream.waits()
            try:
                await stream.told.relay(arrive)
                going_on = False
            except (Unavailable, asyncio.CancelledError) as exc:
                if (broke := stream.ended_by(exc)) is None:
                    raise
                going_on = await self._resumed(broke)
            finally:
                stream.rests()
        self._stream.ended("answered")
        self._sum_up()

    def _arriving(self, take: Take[Sequence[Delta]]) -> Take[Sequence[Delta]]:
        def arrive(deltas: Sequence[Delta]) -> Rest | None:
            if self._resumable:
                deltas = self._noted(deltas)
            rest = take(deltas) if deltas else None
            if rest is None:
                self._stream.waits()
                return None
            self._stream.rests()
            return partial(self._rested, rest)

        return arrive

    async def _rested(self, rest: Rest) -> None:
        await rest()
        self._stream.waits()

    def _noted(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        """The deltas as they are shown: without what was shown before. Only text can be gone on with."""
        if self._seam is not None:
            joined = [msgspec.structs.replace(one, text=self._seam.join(one.text)) for one in deltas]
            deltas = [one for one in joined if one != NOTHING]
        if self._stream.told.only_text:
            self._batches.append(deltas)
        else:
            self._resumable = False
        return deltas

    async def _resumed(self, broke: Unavailable) -> bool:
        """Whether something follows, of another stream. Raises `broke` when nothing can."""
        await self._stream.aclose()
        broke.attempts = tuple(self._asked.trail)
        self._resumes += 1
        if not self._resumable or self._asked.left <= 0 or self._resumes > MOST_RESUMES:
            raise broke
        said = [delta.text for batch in self._batches for delta in batch]
        self._tokens_before = len(said)
        if self._tokens_before >= self._asked.prompt.max_tokens:
            self._end_full()
            return False
        self._seam = Seam("".join(said))
        asked = replace(self._asked, leaving=None)
        asked.tried.add(self._stream.replica)
        if self._seam.asked_for:  # else only white space was said: from the beginning then
            asked = asked.continued(self._seam.asked_for, _tokens_to_the_last_word(said))
        try:
            self._stream = await self._asking.begin(asked)
        except ServiceError as exc:
            broke.attempts = tuple(self._asked.trail)
            raise broke from exc
        self._tokens_before = self._stream.continues_tokens
        self.degraded += (Degradation.RESUMED,)
        return True

    def _end_full(self) -> None:
        """All tokens that were asked for had been said: nothing but the end was lost, and the usage."""
        said, prompt = self._tokens_before, round(self._asked.prompt_tokens)
        self.finish_reason, self.usage = "length", Usage(prompt, said, prompt + said)

    def _sum_up(self) -> None:
        """What the last replica said of the whole answer; what others had said it has counted as prompt."""
        told, before = self._stream.told, self._tokens_before
        if self.finish_reason is not None or told.usage is None:
            return
        self.model, self.fingerprint = told.model, told.fingerprint
        self.finish_reason, self.usage = told.finish_reason, told.usage
        if before:
            counted = told.usage
            prompt = max(0, counted.prompt_tokens - before)
            self.usage = Usage(prompt, counted.completion_tokens + before, counted.total_tokens)

    async def aclose(self) -> None:
        """Hang up if the answer has not ended, so that the LLM stops. Idempotent."""
        try:
            await self._stream.aclose()
        finally:
            if self.seat is not None:
                self.seat.leave()


def _tokens_to_the_last_word(said: list[str]) -> int:
    """Deltas, each at least one token, without white space at the end, which who goes on says again."""
    tokens = len(said)
    while tokens and not said[tokens - 1].strip():
        tokens -= 1
    return tokens
