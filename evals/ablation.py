"""What each technique brings and costs: one thing changed at a time, on the same questions."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from business_api.assistants import Assistant
from evals.comparing import CHANCE
from evals.documents import try_ranking
from evals.indexes import as_served, indexed
from evals.measures import difference, interval
from evals.parts import Parts, changed
from evals.report import Report
from evals.sets import Document, Ranking, Spans
from evals.spans import try_spans
from evals.trials import Trial, retriever_of
from loadtests.figures import Row

AS_IS = "the assistant as it is"
VARIANTS: dict[str, dict[str, Any]] = {
    "fusion: sum": {"fusion": "sum"},
    "fusion: DBSF": {"fusion": "dbsf"},
    "fusion: RRF": {"fusion": "rrf"},
    "dense only": {"dense_weight": 1.0, "bm25_weight": 0.0},
    "BM25 only": {"dense_weight": 0.0, "bm25_weight": 1.0},
    "dense 0.7, BM25 0.3": {"dense_weight": 0.7, "bm25_weight": 0.3},
    "dense 0.3, BM25 0.7": {"dense_weight": 0.3, "bm25_weight": 0.7},
    "candidates: 20": {"candidates": 20},
    "candidates: 40": {"candidates": 40},
    "candidates: 100": {"candidates": 100},
    "near-duplicates out, 0.8": {"duplicate_share": 0.8},
    "neighbours joined": {"join_neighbours": True},
    "passages compressed": {"compress": True},
}
RERANKED: dict[str, dict[str, Any]] = {"rerank: 10": {"rerank": 10}, "rerank: 20": {"rerank": 20}}

Try = Callable[[Any, Assistant, str], Awaitable[Trial]]
"""(retriever, assistant, name) -> Trial."""


def variants_of(assistant: Assistant, parts: Parts) -> dict[str, Assistant]:
    """The assistant, and what differs from it by one technique."""
    changes = VARIANTS | (RERANKED if parts.reranker else {})
    others = {name: changed(assistant, change) for name, change in changes.items()}
    return {AS_IS: assistant} | {name: one for name, one in others.items() if one != assistant}


async def ablate_documents(found: Ranking, parts: Parts, folder: Path) -> Report:
    """Each technique on rankings of documents; duplicates and neighbours change the passages, not these."""

    async def once(retriever: Any, assistant: Assistant, name: str) -> Trial:
        return await try_ranking(retriever, found, assistant, name)

    return await _ablated(found.name, found.documents, once, parts, folder)


async def ablate_spans(found: Spans, parts: Parts, folder: Path) -> Report:
    """Each technique on spans of texts."""

    async def once(retriever: Any, assistant: Assistant, name: str) -> Trial:
        return await try_spans(retriever, found, assistant, name)

    return await _ablated(found.name, list(found.texts.values()), once, parts, folder)


async def _ablated(name: str, documents: list[Document], once: Try, parts: Parts, folder: Path) -> Report:
    trials: dict[str, Trial] = {}
    cutting = as_served(parts.embedder)
    async with indexed(documents, cutting, parts.embedder, parts.settings, folder) as store:
        retriever = retriever_of(store, parts.embedder, parts.reranker)
        for variant, assistant in variants_of(parts.assistant, parts).items():
            trials[variant] = await once(retriever, assistant, variant)
    rows = [row for variant, trial in trials.items() for row in _rows(variant, trial, trials[AS_IS])]
    scores = {variant: trial.scores for variant, trial in trials.items()}
    drawn = _table(name, trials)
    return Report(name=name, kind="ablation", rows=rows, scores=scores, said="one by one", drawn=drawn)


def _table(name: str, trials: dict[str, Trial]) -> Table:
    """A line a variant: each measure with its difference to the assistant as it is, `*` if p < 0.05."""
    drawn = Table(title=f"{name}: one technique changed at a time", title_justify="left")
    drawn.add_column("variant")
    as_is = trials[AS_IS]
    for heading in (*as_is.scores, "p50 ms", "CPU ms"):
        drawn.add_column(heading, justify="right")
    for variant, trial in trials.items():
        cells = [
            _cell(scores, as_is.scores[measure], trial is as_is) for measure, scores in trial.scores.items()
        ]
        drawn.add_row(variant, *cells, f"{trial.times.percentile(50):.2f}", f"{trial.times.cpu:.2f}")
    drawn.caption = "in brackets: less the first line; * where chance alone would do that in less than 5 %"
    return drawn


def _cell(scores: dict[str, float], as_is: dict[str, float], first: bool) -> str:
    found = difference(scores, as_is)
    mean = interval(list(scores.values())).mean
    return f"{mean:.3f}" if first else f"{mean:.3f} ({found.mean:+.3f}{'*' if found.p < CHANCE else ' '})"


def _rows(variant: str, trial: Trial, as_is: Trial) -> list[Row]:
    rows = []
    for measure, scores in trial.scores.items():
        spread, found = interval(list(scores.values())), difference(scores, as_is.scores[measure])
        rows.append(
            Row(
                name=f"{variant}: {measure}",
                unit="",
                better="higher",
                value=spread.mean,
                low=spread.low,
                high=spread.high,
                baseline=interval(list(as_is.scores[measure].values())).mean,
                peers={"difference": found.mean, "p": found.p},
            )
        )
    times = trial.times
    for name, value, all_ in (("ms", times.percentile(50), times.ms), ("CPU ms", times.cpu, times.cpu_ms)):
        rows.append(
            Row(
                name=f"{variant}: {name}",
                unit="ms",
                better="lower",
                value=value,
                low=min(all_),
                high=max(all_),
                baseline=as_is.times.percentile(50) if name == "ms" else as_is.times.cpu,
            )
        )
    return rows
