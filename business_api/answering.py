"""The story of a request: guard -> retrieve -> prompt -> generate -> record.

`answer` returns once the model has begun (or has not been needed), so every refusal and every outage is an
exception, raised while the caller can still be sent a status code. Then deltas flow through `Answer`, which
notes them as they pass. However it ends, the exchange is recorded exactly once, before the caller sees the
last byte.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from business_api.assistants import Assistant, Assistants
from business_api.citations import Citing
from business_api.errors import CallerGone, Refused, RetrievalUnavailable, ServiceError
from business_api.exchange import (
    Degradation,
    Delta,
    Exchange,
    Found,
    Generate,
    Generation,
    Outcome,
    Passage,
    Prompt,
    Question,
    Record,
    Retrieve,
)

log = logging.getLogger(__name__)

NOTHING_FOUND = "The documents do not answer this: nothing in them matches the question."


@dataclass(frozen=True)
class Parts:
    """What the story needs: the ports, and how prompts are filled and questions checked."""

    assistants: Assistants
    check: Callable[[Question], None]
    retrieve: Retrieve
    fill: Callable[[Question, Assistant, Sequence[Passage]], Prompt]
    generate: Generate
    record: Record


async def answer(question: Question, parts: Parts) -> "Answer":
    """Start answering. Use the result as an async context manager: leaving it ends and records the exchange.

    Raises Refused before any work is done, Unavailable when there can be no answer now.
    """
    exchange = Exchange(question=question)
    began = time.perf_counter()
    try:
        parts.check(question)
        assistant = parts.assistants.get(question.assistant)
        exchange.versions["assistant"] = assistant.version
        await _retrieve(exchange, assistant, parts)
        generation = None
        if not _abstains(exchange, assistant):
            exchange.prompt = _fill(exchange, assistant, parts)
            generation = await parts.generate(exchange.prompt, _sampling(question, assistant), exchange.id)
    except BaseException as exc:  # cancellation too: a caller that hangs up leaves an exchange behind
        _end(exchange, exc, began)
        parts.record(exchange)
        if isinstance(exc, Exception):
            raise _named(exc, exchange) from exc
        raise
    return Answer(exchange, generation, parts.record, began, cites=assistant.collection is not None)


async def _retrieve(exchange: Exchange, assistant: Assistant, parts: Parts) -> None:
    if assistant.collection is None:
        return
    question = exchange.question
    try:
        found = await parts.retrieve(search_text(question), question.tenant, assistant)
    except RetrievalUnavailable:
        if assistant.when_retrieval_fails == "refuse":
            raise
        found = Found(passages=(), index="", timings_ms={}, degraded=(Degradation.RETRIEVAL_UNAVAILABLE,))
    exchange.passages = found.passages
    exchange.versions["index"] = found.index
    exchange.timings_ms.update(found.timings_ms)
    exchange.degrade(*found.degraded)


def search_text(question: Question) -> str:
    """What is searched for: the question, after the one before it when there is history."""
    asked = [m.content for m in question.messages if m.role == "user" and m.content]
    return "\n".join(asked[-2:])


def _abstains(exchange: Exchange, assistant: Assistant) -> bool:
    looked = assistant.collection is not None and Degradation.RETRIEVAL_UNAVAILABLE not in exchange.degraded
    return looked and not exchange.passages and assistant.without_passages == "abstain"


def _fill(exchange: Exchange, assistant: Assistant, parts: Parts) -> Prompt:
    began = time.perf_counter()
    prompt = parts.fill(exchange.question, assistant, exchange.passages)
    exchange.timings_ms["prompt"] = (time.perf_counter() - began) * 1000
    exchange.versions["prompt"] = prompt.template or "none"
    exchange.passages = prompt.passages or exchange.passages
    exchange.degrade(*prompt.degraded)
    return prompt


def _sampling(question: Question, assistant: Assistant) -> Mapping[str, object]:
    """The request's sampling over the assistant's."""
    ours: dict[str, object] = {}
    if assistant.temperature is not None:
        ours["temperature"] = assistant.temperature
    if assistant.stop and question.wants_prose:
        ours["stop"] = assistant.stop
    return {**ours, **question.sampling}


def _named(exc: Exception, exchange: Exchange) -> ServiceError:
    """What the caller is told, with the request id; of a bug nothing else."""
    told = exc if isinstance(exc, ServiceError) else ServiceError("internal error")
    told.request_id = exchange.id
    return told


def _end(exchange: Exchange, exc: BaseException | None, began: float) -> None:
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


class Answer:
    """An answer that has begun. Iterate over its deltas once, inside `async with`.

    When the deltas end the exchange is complete and recorded. Iterating raises Unavailable when the answer
    breaks off; leaving the context before the end stops the LLM and records the exchange as abandoned.
    """

    def __init__(
        self, exchange: Exchange, generation: Generation | None, record: Record, began: float, *, cites: bool
    ) -> None:
        self.exchange = exchange
        self._generation = generation
        self._record = record
        self._began = began
        self._recorded = False
        prose = cites and exchange.question.wants_prose
        passages = exchange.prompt.passages if exchange.prompt else ()
        self._citing = Citing(passages) if prose and passages else None
        if generation is not None:
            exchange.timings_ms |= {"queue": generation.queue_ms, "ttft": generation.ttft_ms}

    async def __aenter__(self) -> "Answer":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish(exc or GeneratorExit())
        if self._generation is not None:
            await self._generation.aclose()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        try:
            async for delta in self._deltas():
                self.exchange.answer += delta.text
                if delta.tool_calls:
                    self.exchange.tool_calls.extend(delta.tool_calls)
                yield delta
        except Exception as exc:
            self._finish(exc)
            raise _named(exc, self.exchange) from exc
        self._finish(None)

    async def _deltas(self) -> AsyncIterator[Delta]:
        if self._generation is None:
            self.exchange.finish_reason = "abstained"
            yield Delta(NOTHING_FOUND)
            return
        async for delta in self._generation:
            if self._citing is None:
                yield delta
            elif (
                (text := self._citing.feed(delta.text)) or delta.tool_calls or delta.logprobs or delta.refusal
            ):
                yield Delta(text, delta.tool_calls, delta.logprobs, delta.refusal)
        self.exchange.finish_reason = self._generation.finish_reason
        self.exchange.usage = self._generation.usage
        if self._citing is not None and (rest := self._citing.end()):
            yield Delta(rest)

    def _finish(self, exc: BaseException | None) -> None:
        """Record the exchange, once, with how it ended."""
        if self._recorded:
            return
        self._recorded = True
        if self._generation is not None:
            self.exchange.versions["model"] = self._generation.model
            if self._generation.fingerprint:
                self.exchange.versions["fingerprint"] = self._generation.fingerprint
        if self._citing is not None:
            self.exchange.citations = self._citing.citations
            if self._citing.unknown:
                self.exchange.degrade(Degradation.UNKNOWN_MARKER)
        _end(self.exchange, exc, self._began)
        self._record(self.exchange)
