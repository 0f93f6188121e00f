"""Are the right spans found? Recall, precision and IoU, in characters, of the chunks that a question finds.

As in Chroma's chunking evaluation (Smith and Troynikov, 2024): what is found more than once counts once for
recall, and each time for precision and IoU. A text that stands in several places is found in all of them when
one copy is a passage: retrieval leaves the others out.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from business_api.assistants import Assistant
from business_api.compressing import compress
from business_api.exchange import Found
from business_api.passages import Candidate
from evals.documents import time_rows
from evals.indexes import Cutting, as_served, indexed
from evals.measures import interval
from evals.parts import Parts
from evals.report import Report
from evals.sets import Spanning, Spans
from evals.trials import Scores, Trial, ask_all, embedding_times, retriever_of
from evals.windows import in_windows
from loadtests.figures import Row

TOP = 5
"""Chunks that count."""

TARGETS: dict[tuple[str, str], tuple[float, float]] = {
    ("chunking_eval", "recall"): (0.89, 0.92),
    ("chunking_eval", "IoU"): (0.047, 0.060),
}
"""Floor and aim by set and measure, over all texts."""

Span = tuple[int, int]
Place = tuple[str, int, int]
"""Document, start, end."""


async def evaluate_spans(found: Spans, parts: Parts, folder: Path) -> Report:
    """Scores of our way of cutting, by text and over all, beside those of fixed windows."""
    trials: dict[str, Trial] = {}
    for name, cutting in _cuttings(parts).items():
        async with indexed(
            list(found.texts.values()), cutting, parts.embedder, parts.settings, folder / name
        ) as store:
            retriever = retriever_of(store, parts.embedder, parts.reranker)
            trials[name] = await try_spans(retriever, found, parts.assistant, f"{found.name}: {name}")
    asked = [one.question for one in found.questions]
    embedding = await embedding_times(parts.plain_embedder, asked)
    scores = {name: trial.scores for name, trial in trials.items()}
    return Report(
        name=found.name,
        kind="spans",
        rows=[*_rows(found, scores), *time_rows(trials["assistant"].times, embedding)],
        scores=scores,
        said=f"{len(found.texts)} texts, {len(asked)} questions, top {TOP} chunks",
    )


def _cuttings(parts: Parts) -> dict[str, Cutting]:
    cuttings = {"assistant": as_served(parts.embedder)}
    if parts.embedder.tokenizer is not None:
        cuttings["windows"] = in_windows(parts.embedder.tokenizer)
    return cuttings


async def try_spans(retriever: Any, found: Spans, assistant: Assistant, name: str) -> Trial:
    """The scores of one configuration."""
    assistant = msgspec.structs.replace(assistant, passages=TOP)
    questions = {one.id: one.question for one in found.questions}
    answers, times = await ask_all(retriever, questions, assistant, name)
    scores: Scores = {"recall": {}, "precision": {}, "IoU": {}}
    for one in found.questions:
        answer = answers[one.id]
        if assistant.compress:
            shorter = compress(one.question, answer.passages)
            answer = msgspec.structs.replace(answer, passages=shorter)
        for measure, score in score_spans(one, answer).items():
            scores[measure][one.id] = score
    return Trial(scores, times)


def score_spans(question: Spanning, found: Found) -> dict[str, float]:
    """Recall, precision and IoU in characters, each 0 to 1."""
    wanted = merged((one.start_index, one.end_index) for one in question.references)
    spans = [(one.chunk.document, one.chunk.start, one.chunk.end) for one in found.passages]
    everywhere = [*spans, *_copies(spans, found.candidates)]
    there = merged((start, end) for document, start, end in everywhere if document == question.corpus_id)
    hit = _length(_shared(wanted, there))
    taken = sum(end - start for _, start, end in spans)
    missed = _length(wanted) - hit
    return {
        "recall": hit / _length(wanted),
        "precision": hit / taken if taken else 0.0,
        "IoU": hit / (taken + missed),
    }


def _copies(spans: Sequence[Place], candidates: Sequence[Candidate]) -> Iterator[Place]:
    """Where else the text of these spans stands: in candidates that say the same as one that was kept."""
    kept = {one.chunk.text: one.chunk for one in candidates if one.fate == "kept"}
    for copy in (one.chunk for one in candidates if one.fate != "kept" and one.chunk.text in kept):
        first = kept[copy.text]
        for document, start, end in spans:
            inside = max(start, first.start), min(end, first.end)
            if document == first.document and inside[0] < inside[1]:
                yield (
                    copy.document,
                    copy.start + inside[0] - first.start,
                    copy.start + inside[1] - first.start,
                )


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same characters in spans that do not touch each other."""
    whole: list[Span] = []
    for start, end in sorted(spans):
        if whole and start <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(end, whole[-1][1]))
        else:
            whole.append((start, end))
    return whole


def _shared(these: Sequence[Span], those: Sequence[Span]) -> list[Span]:
    pairs = ((max(a, c), min(b, d)) for a, b in these for c, d in those)
    return [(start, end) for start, end in pairs if start < end]


def _length(spans: Sequence[Span]) -> int:
    return sum(end - start for start, end in spans)


def _rows(found: Spans, scores: dict[str, Scores]) -> list[Row]:
    every = {one.id for one in found.questions}
    rows = [
        _row(measure, measure, scores, every, TARGETS.get((found.name, measure)))
        for measure in scores["assistant"]
    ]
    for text in found.texts:
        of_text = {one.id for one in found.questions if one.corpus_id == text}
        if of_text:
            rows += [
                _row(f"{measure}, {text}", measure, scores, of_text, None) for measure in ("recall", "IoU")
            ]
    return rows


def _row(
    name: str, measure: str, scores: dict[str, Scores], asked: set[str], targets: tuple[float, float] | None
) -> Row:
    spreads = {
        system: interval([one[measure][key] for key in sorted(asked)]) for system, one in scores.items()
    }
    ours = spreads["assistant"]
    floor, aim = targets or (None, None)
    return Row(
        name=name,
        unit="",
        better="higher",
        value=ours.mean,
        low=ours.low,
        high=ours.high,
        baseline=spreads["windows"].mean if "windows" in spreads else None,
        floor=floor,
        aim=aim,
    )
