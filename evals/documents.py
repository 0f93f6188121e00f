"""Are the right documents found? Rankings of a BEIR-like set, with the single retrievers as peers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from business_api.assistants import Assistant
from business_api.exchange import Found
from evals.indexes import as_served, indexed
from evals.measures import difference, interval, score_rankings
from evals.parts import Parts
from evals.report import Report
from evals.sets import Ranking
from evals.trials import Scores, Times, Trial, ask_all, embedding_times, retriever_of
from loadtests.figures import Row

DEPTH = 100
"""Candidates of the single retrievers, so that Recall@100 can be reached."""

TARGETS: dict[tuple[str, str], tuple[float, float]] = {("scifact", "nDCG@10"): (0.72, 0.75)}
"""Floor and aim by set and measure."""

HYBRID = "hybrid less the better single retriever, nDCG@10"


def peers_of(assistant: Assistant) -> dict[str, Assistant]:
    """The assistant, each search by itself, and both fused with equal weights."""
    change = msgspec.structs.replace
    alone = change(assistant, candidates=max(DEPTH, assistant.candidates))
    equal = change(assistant, dense_weight=1.0, bm25_weight=1.0)
    return {
        "assistant": assistant,
        "dense": change(alone, dense_weight=1.0, bm25_weight=0.0),
        "BM25": change(alone, dense_weight=0.0, bm25_weight=1.0),
        "RRF": change(equal, fusion="rrf"),
        "DBSF": change(equal, fusion="dbsf"),
    }


async def evaluate_documents(found: Ranking, parts: Parts, folder: Path) -> Report:
    """Scores, intervals, times: of the assistant, beside its peers."""
    trials: dict[str, Trial] = {}
    async with indexed(
        found.documents, as_served(parts.embedder), parts.embedder, parts.settings, folder
    ) as store:
        retriever = retriever_of(store, parts.embedder, parts.reranker)
        for name, assistant in peers_of(parts.assistant).items():
            trials[name] = await try_ranking(retriever, found, assistant, name)
    embedding = await embedding_times(parts.plain_embedder, list(found.questions.values()))
    scores = {name: trial.scores for name, trial in trials.items()}
    return Report(
        name=found.name,
        kind="documents",
        rows=[
            *_quality(found.name, scores),
            _hybrid(scores),
            *time_rows(trials["assistant"].times, embedding),
        ],
        scores=scores,
        said=f"{len(found.documents):,} documents, {len(found.questions):,} questions",
    )


async def try_ranking(retriever: Any, found: Ranking, assistant: Assistant, name: str) -> Trial:
    """The scores of one configuration."""
    # ten at least: that many documents are scored, and a duplicate is no document of its own
    assistant = msgspec.structs.replace(assistant, passages=max(assistant.passages, 10))
    answers, times = await ask_all(retriever, found.questions, assistant, f"{found.name}: {name}")
    ranked = {question: documents_of(answer) for question, answer in answers.items()}
    return Trial(score_rankings(found.judged, ranked), times)


def documents_of(found: Found) -> Sequence[str]:
    """Documents in the order of their best chunks; what a better chunk already says does not count."""
    kept = (one for one in found.candidates if not one.fate.startswith("duplicate"))
    return list(dict.fromkeys(one.chunk.document for one in kept))


def _quality(name: str, scores: dict[str, Scores]) -> list[Row]:
    rows = []
    for measure, ours in scores["assistant"].items():
        means = {peer: interval(list(one[measure].values())).mean for peer, one in scores.items()}
        spread = interval(list(ours.values()))
        floor, aim = TARGETS.get((name, measure), (None, None))
        rows.append(
            Row(
                name=measure,
                unit="",
                better="higher",
                value=spread.mean,
                low=spread.low,
                high=spread.high,
                baseline=means["BM25"],
                peers={peer: mean for peer, mean in means.items() if peer != "assistant"},
                floor=floor,
                aim=aim,
            )
        )
    return rows


def _hybrid(scores: dict[str, Scores]) -> Row:
    """Where the fusion does not help, it must cost next to nothing."""
    ndcg = {name: one["nDCG@10"] for name, one in scores.items()}
    better = max("dense", "BM25", key=lambda name: sum(ndcg[name].values()))
    found = difference(ndcg["assistant"], ndcg[better])
    return Row(
        name=HYBRID,
        unit="",
        better="higher",
        value=found.mean,
        low=found.low,
        high=found.high,
        floor=-0.01,
        aim=0.0,
        note=f"the better one is {better}; p = {found.p:.3f}",
    )


def time_rows(times: Times, embedding: Times) -> list[Row]:
    """What a question costs: its embedding, and the stages of retrieval without it."""
    return [
        _time_row("embedding a question, p50", embedding.percentile(50), embedding.ms),
        _time_row("embedding a question, p99", embedding.percentile(99), embedding.ms),
        _time_row("embedding a question, CPU", embedding.cpu, embedding.cpu_ms),
        _time_row("retrieval without it, p50", times.percentile(50), times.ms),
        _time_row("retrieval without it, p99", times.percentile(99), times.ms),
        _time_row("retrieval without it, CPU", times.cpu, times.cpu_ms, floor=3.0, aim=1.5),
    ]


def _time_row(
    name: str, value: float, all_: Sequence[float], floor: float | None = None, aim: float | None = None
) -> Row:
    low, high = min(all_), max(all_)
    return Row(name=name, unit="ms", better="lower", value=value, low=low, high=high, floor=floor, aim=aim)
