"""The support check held against pairs of claim and passage: precision, recall, and what fools it.

`python -m evals.support DATA` reads DATA/squad2_dev_half and DATA/scifact. The thresholds are chosen on the
articles of one half (`--calibrate`), and reported on the other.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from business_api.embedding import open_embedder
from business_api.passages import Chunk, Passage
from business_api.settings import Settings
from business_api.supporting import Claim, Grounds, Similarity, read, similarity_of
from evals.claims import Pair, of_scifact, of_squad
from evals.report import Report, write
from loadtests.figures import Row

RESAMPLES = 1000
MADE_UP = ("swapped", "denied", "another passage")
"""Kinds of wrong claims that a careful reader tells by the words; the others need understanding."""


def main() -> None:
    """Print the table and write it to evals/results."""
    asked = argparse.ArgumentParser(prog="python -m evals.support", description=__doc__)
    asked.add_argument("data", type=Path, help="folder that holds squad2_dev_half and scifact")
    asked.add_argument("--calibrate", action="store_true", help="try thresholds on the half for that")
    asked.add_argument("--vectors", action="store_true", help="ask the embedder about what words leave open")
    asked.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = asked.parse_args()
    kind = "calibration" if given.calibrate else "support-vectors" if given.vectors else "support"
    work = calibrate(given.data) if given.calibrate else evaluate(given.data, vectors=given.vectors)
    report = Report(name="claims", kind=kind, rows=asyncio.run(work))
    write(report, given.out, assistant="", split="dev" if given.calibrate else "test")


async def calibrate(data: Path) -> list[Row]:
    """F0.5 (precision counts twice) of the best thresholds, with and without vectors, on the half for it."""
    pairs = [pair for pair in of_squad(data / "squad2_dev_half") if pair.half == "dev" and _by_words(pair)]
    readings = [read(Claim(pair.claim), _grounds(pair).evidence[0]) for pair in pairs]
    share = np.array([0.0 if reading.contradicted else reading.share for reading in readings])
    true = np.array([pair.says_it for pair in pairs])
    embedder = await open_embedder(Settings())
    try:
        similarity = similarity_of(embedder, 60.0)
        cosine = np.array(
            [
                await similarity(pair.claim, reading.window) if 0.3 <= found < 0.9 else 0.0
                for pair, reading, found in zip(pairs, readings, share, strict=True)
            ],
            np.float64,
        )
    finally:
        await embedder.aclose()
    tried = {f"share >= {least}": share >= least for least in (0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)}
    for enough, little, alike in product((0.6, 0.7, 0.8, 0.9), (0.3, 0.4, 0.5), (0.5, 0.55, 0.6, 0.65, 0.7)):
        name = f"share >= {enough}, or >= {little} and cosine >= {alike}"
        tried[name] = (share >= enough) | ((share >= little) & (cosine >= alike))
    rows = [_tried(name, said, true) for name, said in tried.items()]
    return [*rows[:7], *sorted(rows[7:], key=lambda row: -row.value)[:7]]


def _tried(name: str, said: "np.ndarray[tuple[int], np.dtype[np.bool_]]", true: Any) -> Row:
    precision, recall = (said & true).sum() / said.sum(), (said & true).sum() / true.sum()
    score = 1.25 * precision * recall / (0.25 * precision + recall)
    note = f"precision {precision:.3f}, recall {recall:.3f}"
    return Row.of(f"F0.5, {name}", "F0.5", "higher", [float(score)], note=note)


async def evaluate(data: Path, *, vectors: bool = False) -> list[Row]:
    """The rows of the half for reporting. Raises OSError when the sets are not there."""
    pairs = [pair for pair in of_squad(data / "squad2_dev_half") if pair.half == "test"]
    pairs += of_scifact(data / "scifact")
    embedder = await open_embedder(Settings()) if vectors else None
    try:
        similarity = similarity_of(embedder, 60.0) if embedder else None
        began = time.process_time()
        verdicts = np.array([await _verdict(pair, similarity) for pair in pairs])
        cost = (time.process_time() - began) / len(pairs) * 1000
    finally:
        if embedder:
            await embedder.aclose()
    return [
        *_quality(pairs, verdicts),
        *_by_kind(pairs, verdicts),
        Row.of("CPU a claim on a passage not read before", "ms", "lower", [cost]),
    ]


def _grounds(pair: Pair) -> Grounds:
    chunk = Chunk(id="", document="", title="", number=0, start=0, end=len(pair.text), text=pair.text)
    return Grounds([Passage(chunk, 1.0)])


async def _verdict(pair: Pair, similarity: Similarity | None) -> bool:
    found = await _grounds(pair).supported(Claim(pair.claim), [1], similarity)
    return found is not None and found[1]


def _by_words(pair: Pair) -> bool:
    """Whether the claim is true, or wrong in a way that a careful reader tells by the words."""
    return pair.says_it or any(kind in pair.kind for kind in MADE_UP)


def _quality(pairs: Sequence[Pair], verdicts: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> list[Row]:
    """Precision and recall on the pairs from paragraphs, with 95 % intervals by bootstrap."""
    rows = []
    for name, all_of_them in (("wrong by their words", False), ("wrong in any way", True)):
        chosen = np.array(
            [not pair.kind.startswith("scientific") and (all_of_them or _by_words(pair)) for pair in pairs]
        )
        said, true = verdicts[chosen], np.array([pair.says_it for pair in pairs])[chosen]
        drawn = np.random.default_rng(7).integers(0, len(said), (RESAMPLES, len(said)))
        hits = said & true
        precision = hits[drawn].sum(1) / said[drawn].sum(1)
        recall = hits[drawn].sum(1) / true[drawn].sum(1)
        note = f"{int(true.sum())} true claims, {int((~true).sum())} {name}"
        rows.append(_share(f"precision, claims {name}", hits.sum() / said.sum(), precision, note))
        if not all_of_them:
            rows.append(_share("recall", hits.sum() / true.sum(), recall, note))
    return rows


def _share(name: str, value: float, drawn: "np.ndarray[tuple[int], np.dtype[np.float64]]", note: str) -> Row:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Row(
        name=name,
        unit="share",
        better="higher",
        value=float(value),
        low=float(low),
        high=float(high),
        note=note,
    )


def _by_kind(pairs: Sequence[Pair], verdicts: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> list[Row]:
    """What share of each kind of claim is said to be supported."""
    rows = []
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        own = [(pair.says_it, said) for pair, said in zip(pairs, verdicts, strict=True) if pair.kind == kind]
        share = float(np.mean([said for _, said in own]))
        better = "higher" if own[0][0] else "lower"
        rows.append(
            Row.of(f"supported: {kind}", "share", better, [share], note=f"{len(own)} claims")  # type: ignore[arg-type]
        )
    return rows


if __name__ == "__main__":
    main()
