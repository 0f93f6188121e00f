"""The `tandem` object of every answer: what it rests on, and on request how its passages were chosen."""

from collections.abc import Mapping
from typing import Any

from business_api.exchange import Exchange, Outcome
from business_api.passages import Candidate, Chunk, Passage, Query
from business_api.usage import Attempt

Ranks = Mapping[str, int]


def tandem_object(exchange: Exchange) -> dict[str, Any]:
    """What an answer rests on.

    `cached` is there when the answer was given before, `answerable` when the passages were judged,
    `support_rate` when sentences were, `passages` in an abstention (the nearest ones), `explain` when the
    question asked for it.
    """
    told: dict[str, Any] = {
        "exchange": exchange.id,
        "contract": exchange.contract,
        "outcome": exchange.outcome,
        "degraded": exchange.degraded,
        "versions": exchange.versions,
        "citations": exchange.citations,
        "timings_ms": {name: round(ms, 2) for name, ms in exchange.timings_ms.items()},
    }
    if exchange.attempts:
        told["attempts"] = [_attempt(attempt) for attempt in exchange.attempts]
    if exchange.cached is not None:
        told["cached"] = exchange.cached
    if exchange.judgement is not None:
        told["answerable"] = round(exchange.judgement.probability, 3)
    if exchange.support_rate is not None:
        told["support_rate"] = round(exchange.support_rate, 3)
    if exchange.outcome is Outcome.ABSTAINED:
        told["passages"] = [_nearest(passage) for passage in exchange.passages]
    if exchange.question.explain:
        told["explain"] = {
            "query": None if exchange.query is None else _searched(exchange.query),
            "candidates": _explained(exchange.explained),
        }
    return told


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {"replica": attempt.replica, "outcome": attempt.outcome, "ms": round(attempt.ms, 1)}


def _nearest(passage: Passage) -> dict[str, Any]:
    return _where(passage.chunk) | {"text": passage.chunk.text}


def _where(chunk: Chunk) -> dict[str, Any]:
    return {
        "document": chunk.document,
        "title": chunk.title,
        "heading": chunk.heading,
        "start": chunk.start,
        "end": chunk.end,
    }


def _searched(query: Query) -> dict[str, Any]:
    return {
        "texts": query.texts,
        "hypothetical": query.hypothetical,
        "filter": query.narrower or query.narrowing,
    }


def _explained(candidates: tuple[Candidate, ...]) -> list[dict[str, Any]]:
    """Each candidate in the order they ended up in; ranks count from 1 within their own stage."""
    fused = _ranks({one.chunk.id: one.score for one in candidates})
    reranked = _ranks({one.chunk.id: one.rerank_score for one in candidates if one.rerank_score is not None})
    return [_candidate(one, fused, reranked) for one in candidates]


def _ranks(scores: Mapping[str, float]) -> Ranks:
    """Places by score, equal ones by chunk id, as the fusion orders them."""
    best = sorted(scores, key=lambda chunk: (-round(scores[chunk], 6), chunk))
    return {chunk: rank for rank, chunk in enumerate(best, 1)}


def _candidate(one: Candidate, fused: Ranks, reranked: Ranks) -> dict[str, Any]:
    chunk = one.chunk
    return {
        "chunk": chunk.id,
        **_where(chunk),
        "dense": _place(one.dense_rank, one.dense_score),
        "bm25": _place(one.bm25_rank, one.bm25_score),
        "fused": _place(fused[chunk.id], one.score),
        "rerank": _place(reranked.get(chunk.id), one.rerank_score),
        "fate": one.fate,
    }


def _place(rank: int | None, score: float | None) -> dict[str, float] | None:
    """Rank and score in one stage, None for a candidate that it did not see."""
    return None if rank is None or score is None else {"rank": rank, "score": round(score, 6)}
