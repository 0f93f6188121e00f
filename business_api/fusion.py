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
    chunks: dict[str, Chunk] = {}
    scores: dict[str, float] = {}
    for lists, weight in ((dense, weights[0]), (bm25, weights[1] * unit)):
        for found in lists:
            for passage, score in zip(found, _points(found, fusion, weight, candidates), strict=True):
                chunks.setdefault(passage.chunk.id, passage.chunk)
                scores[passage.chunk.id] = scores.get(passage.chunk.id, 0.0) + score
    near, worded = _places(dense), _places(bm25)
    fused = [
        Candidate(
            chunk=chunk,
            dense_rank=near.get(key, _NOWHERE)[0],
            dense_score=near.get(key, _NOWHERE)[1],
            bm25_rank=worded.get(key, _NOWHERE)[0],
            bm25_score=worded.get(key, _NOWHERE)[1],
            score=scores[key],
        )
        for key, chunk in chunks.items()
    ]
    return sorted(fused, key=lambda one: (-round(one.score, 6), one.chunk.id))


_NOWHERE = (None, None)


def _places(lists: Sequence[List]) -> dict[str, tuple[int, float]]:
    """Rank from 1 and score of each chunk, in the list where it stands best."""
    places: dict[str, tuple[int, float]] = {}
    for found in lists:
        for rank, passage in enumerate(found, 1):
            before = places.get(passage.chunk.id)
            if before is None or rank < before[0]:
                places[passage.chunk.id] = (rank, passage.score)
    return places


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
