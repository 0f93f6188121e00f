"""An answer that has begun: its deltas flow, its citations are set, its end is recorded exactly once."""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from types import TracebackType

import msgspec

from business_api.arrivals import Rest, Take
from business_api.citations import Citing
from business_api.errors import STOPS, CallerGone, Refused, ServiceError, Unavailable
from business_api.exchange import Degradation, Delta, Exchange, Generation, Outcome, Record
from business_api.usage import Attempt, Usage

log = logging.getLogger(__name__)


class Spoken:
    """A Generation that the LLM has no part in: an abstention, or sentences of the passages themselves."""

    fingerprint: str | None = None
    usage: Usage | None = None
    ttft_ms = 0.0
    attempts: tuple[Attempt, ...] = ()
    degraded: tuple[Degradation, ...] = ()

    def __init__(self, text: str, *, model: str, finish_reason: str) -> None:
        self.model = model
        self.finish_reason: str | None = finish_reason
        self._text = text

    async def relay(self, take: Take[Sequence[Delta]]) -> None:
        """All of it, together."""
        await _show(self._deltas(), take)

    def _deltas(self) -> Sequence[Delta]:
        return [Delta(self._text)]

    async def aclose(self) -> None:
        """Nothing runs."""


class Answer:
    """An answer that has begun. Relay its deltas once, inside `async with`; empty ones are possible.

    When the deltas end the exchange is complete and recorded. Relaying raises Unavailable when the answer
    breaks off; leaving the context before the end stops the LLM and records the exchange as abandoned.
    """

    def __init__(
        self, exchange: Exchange, generation: Generation, record: Record, began: float, citing: Citing | None
    ) -> None:
        self.exchange = exchange
        self._generation = generation
        self._record = record
        self._began = began
        self._citing = citing
        self._said: list[str] = []
        self._recorded = False
        if exchange.cached is None:
            exchange.timings_ms["ttft"] = generation.ttft_ms
        if generation.degraded:
            exchange.degrade(*generation.degraded)

    async def __aenter__(self) -> "Answer":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish(exc or GeneratorExit())
        await self._generation.aclose()

    async def relay(self, take: Take[Sequence[Delta]]) -> None:
        """Hand the deltas on to `take`, those that arrived together at once."""
        noted, citing = self._noted(take), self._citing
        try:
            await self._generation.relay(noted if citing is None else _checked(citing, noted))
            self.exchange.finish_reason = self._generation.finish_reason
            self.exchange.usage = self._generation.usage
            if citing is not None and (text := await citing.end()):
                await _show([Delta(text)], noted)
        except (Exception, asyncio.CancelledError) as exc:
            ending = told(exc)
            self._finish(ending)
            if isinstance(ending, Exception):
                raise named(ending, self.exchange) from exc
            raise
        self._finish(None)

    async def whole(self) -> list[Delta]:
        """All deltas, once the last one has come."""
        deltas: list[Delta] = []
        await self.relay(deltas.extend)
        return deltas

    def _noted(self, take: Take[Sequence[Delta]]) -> Take[Sequence[Delta]]:
        said, exchange = self._said, self.exchange

        def note(deltas: Sequence[Delta]) -> Rest | None:
            for delta in deltas:
                said.append(delta.text)
                if delta.reasoning:
                    exchange.thought += len(delta.reasoning)
                if delta.tool_calls:
                    exchange.tool_calls.extend(delta.tool_calls)
            return take(deltas)

        return note

    def _finish(self, exc: BaseException | None) -> None:
        """Record the exchange, once, with how it ended."""
        if self._recorded:
            return
        self._recorded = True
        self.exchange.answer = "".join(self._said)
        self.exchange.versions["model"] = self._generation.model
        if self._generation.fingerprint:
            self.exchange.versions["fingerprint"] = self._generation.fingerprint
        self.exchange.attempts += self._generation.attempts
        self.exchange.degrade(*self._generation.degraded)
        if self._citing is not None:
            self.exchange.citations = self._citing.citations
            self.exchange.support_rate = self._citing.support_rate
            if self._citing.unknown:
                self.exchange.degrade(Degradation.UNKNOWN_MARKER)
            if self._citing.unsupported:
                self.exchange.degrade(Degradation.UNSUPPORTED_CITATION)
        end(self.exchange, exc, self._began)
        self._record(self.exchange)


def _checked(citing: Citing, take: Take[Sequence[Delta]]) -> Take[Sequence[Delta]]:
    """Shows what may be shown of each delta; all of its text may be held back."""

    async def check(deltas: Sequence[Delta]) -> None:
        await _show([msgspec.structs.replace(one, text=await citing.feed(one.text)) for one in deltas], take)

    return lambda deltas: partial(check, deltas)


async def _show(deltas: Sequence[Delta], take: Take[Sequence[Delta]]) -> None:
    if (rest := take(deltas)) is not None:
        await rest()


def told(exc: BaseException) -> BaseException:
    """What ended an answer. Only who stops the service says why it cancels (`serving`): no caller hung up."""
    if isinstance(exc, asyncio.CancelledError) and exc.args:
        return Unavailable(STOPS)
    return exc


def named(exc: Exception, exchange: Exchange) -> ServiceError:
    """What the caller is told, with the request id; of a bug nothing else."""
    error = exc if isinstance(exc, ServiceError) else ServiceError("internal error")
    error.request_id = exchange.id
    return error


def end(exchange: Exchange, exc: BaseException | None, began: float) -> None:
    """Note how the exchange ended; `exc` is what ended it, None a complete answer."""
    exchange.timings_ms["total"] = (time.perf_counter() - began) * 1000
    if exc is None:
        exchange.outcome = Outcome.ANSWERED if exchange.finish_reason != "abstained" else Outcome.ABSTAINED
    elif isinstance(exc, CallerGone | asyncio.CancelledError | GeneratorExit):
        exchange.outcome = Outcome.ABANDONED
    elif isinstance(exc, ServiceError):
        exchange.outcome = Outcome.REFUSED if isinstance(exc, Refused) else Outcome.FAILED
        exchange.error = exc.envelope()["error"]
    else:
        exchange.outcome = Outcome.FAILED
        exchange.error = ServiceError("internal error").envelope()["error"]
        log.error("exchange %s failed", exchange.id, exc_info=exc)
