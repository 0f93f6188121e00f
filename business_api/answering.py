"""The story of a request: guard -> admit -> rewrite -> retrieve -> judge -> prompt -> generate -> record.

`answer` returns once the model has begun (or has not been needed), so every refusal and every outage is an
exception, raised while the caller can still be sent a status code. Then deltas flow through `Answer`, which
notes them as they pass (`unfolding`). However it ends, the exchange is recorded exactly once, before the
caller sees the last byte.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from business_api.assistants import Assistant, Assistants
from business_api.citations import Citing
from business_api.deadlines import caller_deadline, within_deadline
from business_api.errors import RetrievalUnavailable, Unavailable
from business_api.exchange import (
    Degradation,
    Exchange,
    Extract,
    Found,
    Generate,
    Generation,
    Judge,
    Message,
    Prompt,
    Question,
    Recall,
    Record,
    Reserve,
    Retrieve,
    Rewrite,
)
from business_api.extracting import quoted
from business_api.passages import Passage, Query
from business_api.place import Admit, Room
from business_api.supporting import Similarity
from business_api.unfolding import Answer, Spoken, end, named, told

__all__ = ["Answer", "Parts", "answer"]

Earlier = Callable[[], Awaitable[Sequence[Message]]]
"""What was said before the question, oldest first. Raises Unavailable."""

NOTHING_FOUND = "The documents do not answer this: nothing in them matches the question."
NOT_ANSWERED = "The documents do not answer this. The passages shown come nearest to the question."


@dataclass(frozen=True)
class Parts:
    """What the story needs: the ports; `chains` are `generate` for assistants, by name, with fallbacks."""

    assistants: Assistants
    check: Callable[[Question], None]
    admit: Admit
    rewrite: Rewrite
    retrieve: Retrieve
    judge: Judge
    fill: Callable[[Question, Assistant, Sequence[Passage]], Prompt]
    generate: Generate
    extract: Extract
    record: Record
    similarity: Similarity | None = None
    room: Room | None = None
    reserve: Reserve | None = None
    recall: Recall | None = None
    chains: Mapping[str, Generate] = field(default_factory=dict)


async def answer(question: Question, parts: Parts, earlier: Earlier | None = None) -> Answer:
    """Start answering. Use the result as an async context manager: leaving it ends and records the exchange.

    Raises Refused before any work is done, Unavailable when there can be no answer now.
    """
    exchange = Exchange(question=question)
    began, record = time.perf_counter(), parts.record
    try:
        parts.check(question)
        assistant = parts.assistants.get(question.assistant)
        exchange.versions["assistant"] = assistant.version
        question = await _continued(exchange, assistant, parts, earlier)
        if assistant.cache_seconds and parts.recall and (said := await parts.recall(exchange, assistant)):
            return Answer(exchange, said, record, began, None)
        if parts.reserve is not None:
            await parts.reserve(question, assistant)
        place = await parts.admit(question, assistant)
        exchange.timings_ms["queue"], record = place.queue_ms, place.ending(parts.record)
        if assistant.collection is not None:
            async with within_deadline():
                await _retrieve(exchange, assistant, parts)
        if (refusal := _abstention(exchange, assistant)) is not None:
            generation: Generation = Spoken(refusal, model="none", finish_reason="abstained")
        else:
            exchange.prompt = _fill(exchange, assistant, parts)
            generation = await _generate(exchange, assistant, parts)
        if isinstance(generation, Spoken):
            place.give_back()
        return Answer(exchange, generation, record, began, _citing(exchange, assistant, parts))
    except BaseException as exc:  # cancellation too: a caller that hangs up leaves an exchange behind
        ending = told(exc)
        end(exchange, ending, began)
        record(exchange)
        if isinstance(ending, Exception):
            raise named(ending, exchange) from exc
        raise


async def _continued(
    exchange: Exchange, assistant: Assistant, parts: Parts, earlier: Earlier | None
) -> Question:
    """The question with what was said before it, which is not read for one that finds no room now.

    Where answers are kept it is read all the same: one of them needs no room.
    """
    asked, began = exchange.question, time.perf_counter()
    if earlier is None:
        return asked
    if parts.room is not None and not assistant.cache_seconds:
        parts.room(asked, assistant)
    async with within_deadline():
        messages = (*await earlier(), *asked.messages)
    exchange.timings_ms["history"] = (time.perf_counter() - began) * 1000
    exchange.question = msgspec.structs.replace(asked, messages=messages)
    return exchange.question


async def _retrieve(exchange: Exchange, assistant: Assistant, parts: Parts) -> None:
    """Rewrite the question, find passages, judge whether they can answer."""
    rewritten = await parts.rewrite(exchange.question, assistant)
    exchange.query = rewritten.query
    exchange.timings_ms.update(rewritten.timings_ms)
    exchange.degrade(*rewritten.degraded)
    try:
        found = await parts.retrieve(rewritten.query, exchange.question.tenant, assistant)
    except RetrievalUnavailable:
        if assistant.when_retrieval_fails == "refuse":
            raise
        exchange.degrade(Degradation.RETRIEVAL_UNAVAILABLE)
        return
    exchange.passages = found.passages
    exchange.versions["index"] = found.index
    exchange.timings_ms.update(found.timings_ms)
    exchange.degrade(*found.degraded)
    if exchange.question.explain:
        exchange.explained = found.candidates
    _judge(exchange, rewritten.query, found, assistant, parts)


def _judge(exchange: Exchange, query: Query, found: Found, assistant: Assistant, parts: Parts) -> None:
    exchange.judgement = judged = parts.judge(query.text, found, assistant)
    if judged is not None and not judged.answerable and assistant.abstain == "flag":
        exchange.degrade(Degradation.LOW_CONFIDENCE)


def _abstention(exchange: Exchange, assistant: Assistant) -> str | None:
    """What is said in place of an answer; None when there is to be one."""
    if assistant.collection is None or Degradation.RETRIEVAL_UNAVAILABLE in exchange.degraded:
        return None
    if not exchange.passages:
        return NOTHING_FOUND if assistant.without_passages == "abstain" else None
    unsure = exchange.judgement is not None and not exchange.judgement.answerable
    return NOT_ANSWERED if unsure and assistant.abstain == "refuse" else None


def _fill(exchange: Exchange, assistant: Assistant, parts: Parts) -> Prompt:
    began = time.perf_counter()
    prompt = parts.fill(exchange.question, assistant, exchange.passages)
    exchange.timings_ms["prompt"] = (time.perf_counter() - began) * 1000
    exchange.versions["prompt"] = prompt.template or "none"
    exchange.passages = prompt.passages or exchange.passages
    exchange.degrade(*prompt.degraded)
    return prompt


async def _generate(exchange: Exchange, assistant: Assistant, parts: Parts) -> Generation:
    """The LLM's answer, or, if the assistant may, sentences of the passages when there is no LLM."""
    assert exchange.prompt is not None
    question = exchange.question
    try:
        generate = parts.chains.get(assistant.name, parts.generate)
        return await generate(exchange.prompt, _sampling(question, assistant), exchange.id)
    except Unavailable as exc:
        exchange.attempts = exc.attempts
        refuse = assistant.when_llm_fails == "refuse" or caller_deadline() <= time.monotonic()
        if refuse or not question.wants_prose or exchange.query is None:
            raise
        sentences = parts.extract(exchange.query.text, exchange.prompt.passages)
        if not sentences:
            raise
        exchange.degrade(Degradation.EXTRACTIVE_ANSWER)
        exchange.citations = quoted(sentences, exchange.prompt.passages)
        exchange.support_rate = 1.0
        return Spoken(sentences, model="none", finish_reason="stop")


def _sampling(question: Question, assistant: Assistant) -> Mapping[str, object]:
    """The request's sampling over the assistant's."""
    ours: dict[str, object] = {}
    if assistant.temperature is not None:
        ours["temperature"] = assistant.temperature
    if assistant.stop and question.wants_prose:
        ours["stop"] = assistant.stop
    return {**ours, **question.sampling}


def _citing(exchange: Exchange, assistant: Assistant, parts: Parts) -> Citing | None:
    """Who sets and checks the markers: nobody where there are no passages or no prose, or all is quoted."""
    passages = exchange.prompt.passages if exchange.prompt else ()
    quoted_only = Degradation.EXTRACTIVE_ANSWER in exchange.degraded
    if assistant.collection is None or not exchange.question.wants_prose or not passages or quoted_only:
        return None
    return Citing(passages, support=assistant.support, similarity=parts.similarity)
