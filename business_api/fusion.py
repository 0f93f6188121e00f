"""Fuses what several searches found into one list, with the place of each chunk in each search.

Fused here and not in the vector engine: the scores of the single searches are needed anyway, to judge
whether the passages can answer and to explain why they were chosen, and it costs no more.
"""

import statistics
from collections.abc import Sequence

from business_api.assistants import Fusion
from business_api.passages import Candidate, Chunk, Passage

RRF_K = 60
"""Cormack, Clarke, Büttcher: Reciprocal Rank Fusion, SIGIR 2009."""

BM25_UNIT = 0.02
"""What a BM25 score of 1 counts in the sum, beside a cosine of 1; see docs/evaluation.md."""

List = tuple[Passage, ...]


def fuse(
    dense: Sequence[List],
    bm25: Sequence[List],
    fusion: Fusion,
    weights: tuple[float, float],
    candidates: int,
) -> list[Candidate]:
    """All chunks that were found, best first, equal scores by chunk id; `weights` are of (dense, BM25).

    A list of fewer than `candidates` holds all that its search can find.
    """
    unit = BM25_UNIT if fusion == "sum" else 1.0
    tallies: dict[str, _Tally] = {}
    for lists, weight, worded in ((dense, weights[0], False), (bm25, weights[1] * unit, True)):
        for found in lists:
            scores = _points(found, fusion, weight, candidates)
            for rank, (passage, score) in enumerate(zip(found, scores, strict=True), 1):
                tally = tallies.get(passage.chunk.id)
                if tally is None:
                    tally = tallies[passage.chunk.id] = _Tally(passage.chunk)
                tally.add(score, rank, passage.score, worded=worded)
    order = sorted((-round(tally.score, 6), key) for key, tally in tallies.items())
    return [tallies[key].candidate() for _, key in order]


class _Tally:
    """What is found of one chunk; its rank and score in each search are those where it stands best."""

    __slots__ = ("bm25", "chunk", "dense", "score")

    def __init__(self, chunk: Chunk) -> None:
        self.chunk, self.score = chunk, 0.0
        self.dense = self.bm25 = _NOWHERE

    def add(self, score: float, rank: int, found: float, *, worded: bool) -> None:
        self.score += score
        before = (self.bm25 if worded else self.dense)[0]
        if before is not None and before <= rank:
            return
        if worded:
            self.bm25 = (rank, found)
        else:
            self.dense = (rank, found)

    def candidate(self) -> Candidate:
        return Candidate(
            chunk=self.chunk,
            dense_rank=self.dense[0],
            dense_score=self.dense[1],
            bm25_rank=self.bm25[0],
            bm25_score=self.bm25[1],
            score=self.score,
        )


_NOWHERE: tuple[int | None, float | None] = (None, None)


def _points(found: List, fusion: Fusion, weight: float, candidates: int) -> list[float]:
    if fusion == "rrf":
        return _reciprocal_ranks(found, weight)
    if fusion == "dbsf":
        return _normalised(found, weight)
    return _above_the_last(found, weight, candidates)


def _above_the_last(found: List, weight: float, candidates: int) -> list[float]:
    """The scores as they are. What is not in a full list scores at most as its last one: that counts 0."""
    floor = found[-1].score if len(found) >= candidates else 0.0
    return [weight * (passage.score - floor) for passage in found]


def _reciprocal_ranks(found: List, weight: float) -> list[float]:
    """Weighted as Qdrant does it (lib/segment/src/common/reciprocal_rank_fusion.rs)."""
    if weight == 0:
        return [0.0] * len(found)
    return [1 / ((place + 1) / weight + RRF_K - 1) for place in range(len(found))]


def _normalised(found: List, weight: float) -> list[float]:
    """Distribution-based score fusion: 0 is three deviations below the mean, 1 three above it (Mazzeschi)."""
    scores = [passage.score for passage in found]
    deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
    if deviation == 0:
        return [weight * 0.5] * len(scores)
    low = statistics.fmean(scores) - 3 * deviation
    return [weight * (score - low) / (6 * deviation) for score in scores]
