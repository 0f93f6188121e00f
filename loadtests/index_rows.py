"""Turns what was measured of the index into result rows."""

import statistics
from collections.abc import Mapping, Sequence

import msgspec

from loadtests.figures import Row


class Measured(msgspec.Struct, frozen=True):
    """CPU ms of questions by kind at `chunks` chunks, ms of deletions, per cent of the embedder's speed
    by kind, and by corpus the MB that a process grew: with a store that keeps nothing, with the embedded one.
    """

    chunks: int
    questions: Mapping[str, Sequence[float]]
    deletions: Sequence[float]
    speeds: Mapping[str, Sequence[float]]
    grown: Mapping[int, tuple[float, float]]


def rows_of(found: Measured) -> list[Row]:
    """All rows of a run."""
    return [*_questions(found), *_deletions(found), *_ingestion(found)]


def _questions(found: Measured) -> list[Row]:
    engine = statistics.median(found.questions["engine"])
    notes = {
        "again": "without the embedder; `direct` is the store's part; low and high are 10 and 90 %",
        "first": "its chunks are read from the index",
        "unsettled": "an ingest has begun and is not done",
    }
    names = {
        "again": "CPU a question, chunks known",
        "first": "CPU a question, chunks not known",
        "unsettled": "CPU a question, during an ingest",
    }
    return [
        Row(
            name=f"{names[kind]}, {found.chunks:,} chunks",
            unit="ms",
            better="lower",
            value=statistics.median(found.questions[kind]),
            low=_quantile(found.questions[kind], 10),
            high=_quantile(found.questions[kind], 90),
            baseline=engine,
            floor=3.0,
            aim=1.5,
            note=note,
        )
        for kind, note in notes.items()
    ]


def _deletions(found: Measured) -> list[Row]:
    return [
        Row(
            name=f"deletion to invisible, p{share}, {found.chunks:,} chunks",
            unit="ms",
            better="lower",
            value=_quantile(found.deletions, share),
            low=min(found.deletions),
            high=max(found.deletions),
            floor=1000.0,
            aim=100.0,
            note="from the call of publish to a question that does not find it" if share == 99 else "",
        )
        for share in (50, 99)
    ]


def _ingestion(found: Measured) -> list[Row]:
    rows = [
        Row.of(
            f"ingestion, share of the embedder's own speed, {kind}",
            "%",
            "higher",
            shares,
            baseline=100.0,
            floor=90.0,
            note="the same texts in the same batches, one thread" if kind == "clock" else "",
        )
        for kind, shares in found.speeds.items()
    ]
    smallest = min(found.grown)
    for chunks, (forgotten, kept) in found.grown.items():
        for name, grown, place in (("pipeline alone", forgotten, 0), ("with the embedded index", kept, 1)):
            rows.append(
                Row.of(
                    f"memory of ingesting {chunks:,} chunks, {name}",
                    "MB",
                    "lower",
                    [grown],
                    baseline=found.grown[smallest][place],
                    note="growth to the peak, hashing embedder; `direct` is that of the smallest corpus"
                    if chunks != smallest and place == 0
                    else "",
                )
            )
    return rows


def _quantile(figures: Sequence[float], share: int) -> float:
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]
