"""Our fusion is Qdrant's: the same scores as its local mode, and the place of each chunk in each search."""

import random

import pytest
from qdrant_client import QdrantClient, models

from business_api.assistants import Fusion
from business_api.fusion import BM25_UNIT, fuse
from business_api.passages import Candidate, Passage
from tests.fakes import passage

POINTS = 40


def found(*scores: float, first: int = 0) -> tuple[Passage, ...]:
    """Passages 0, 1, 2 ... with these scores."""
    return tuple(passage("text", number=first + n, score=score) for n, score in enumerate(scores))


def numbers(candidates: list[Candidate]) -> list[int]:
    return [one.chunk.number for one in candidates]


@pytest.mark.parametrize(
    ("fusion", "weights"), [("dbsf", (1.0, 1.0)), ("rrf", (1.0, 1.0)), ("rrf", (3.0, 0.5))]
)
def test_scores_are_those_of_qdrant(fusion: Fusion, weights: tuple[float, float]) -> None:
    dice = random.Random(3)
    client = QdrantClient(":memory:")
    vectors = models.VectorParams(size=8, distance=models.Distance.COSINE)
    client.create_collection("c", vectors_config={"a": vectors, "b": vectors})
    point = [[dice.gauss(0, 1) for _ in range(8)] for _ in range(2 * POINTS)]
    client.upsert(
        "c",
        [
            models.PointStruct(id=n, vector={"a": point[n], "b": point[POINTS + n]}, payload={})
            for n in range(POINTS)
        ],
    )
    asked = [dice.gauss(0, 1) for _ in range(8)]
    branches = [models.Prefetch(query=asked, using=name, limit=12) for name in "ab"]
    how: models.FusionQuery | models.RrfQuery = models.FusionQuery(fusion=models.Fusion.DBSF)
    if fusion == "rrf":
        how = models.RrfQuery(rrf=models.Rrf(k=60, weights=list(weights)))
    oracle = {p.id: p.score for p in client.query_points("c", query=how, prefetch=branches, limit=99).points}
    lists = [
        tuple(
            passage("text", number=int(p.id), score=p.score)
            for p in client.query_points("c", query=asked, using=name, limit=12).points
        )
        for name in "ab"
    ]
    ours = {one.chunk.number: one.score for one in fuse([lists[0]], [lists[1]], fusion, weights, 12)}
    assert len(ours) > 12
    assert ours == pytest.approx(oracle, abs=1e-6)


def test_each_candidate_says_where_each_search_put_it() -> None:
    one, other = fuse([found(0.9, 0.5)], [found(7.0, first=1)], "rrf", (1.0, 1.0), 40)
    assert (one.chunk.number, one.dense_rank, one.dense_score) == (1, 2, 0.5)
    assert (one.bm25_rank, one.bm25_score) == (1, 7.0)
    assert (other.chunk.number, other.dense_rank, other.bm25_rank) == (0, 1, None)


def test_of_several_wordings_the_best_place_counts_and_the_scores_add_up() -> None:
    alone = fuse([found(0.9, 0.8)], [], "rrf", (1.0, 1.0), 40)
    twice = fuse([found(0.9, 0.8), found(0.7, first=1)], [], "rrf", (1.0, 1.0), 40)
    assert numbers(alone) == [0, 1]
    assert numbers(twice) == [1, 0]
    assert (twice[0].dense_rank, twice[0].dense_score) == (1, 0.7)


@pytest.mark.parametrize("fusion", ["sum", "rrf", "dbsf"])
def test_a_search_of_weight_zero_changes_no_order(fusion: Fusion) -> None:
    candidates = fuse([found(0.9, 0.5, 0.1)], [found(9.0, 1.0, first=2)], fusion, (0.0, 1.0), 40)
    assert numbers(candidates)[:2] == [2, 3]
    assert [one.score for one in candidates if one.chunk.number < 2] == [0.0, 0.0]


@pytest.mark.parametrize("fusion", ["sum", "rrf", "dbsf"])
def test_equal_scores_are_ordered_by_chunk_id(fusion: Fusion) -> None:
    assert numbers(fuse([found(0.5)], [found(25.0, first=1)], fusion, (1.0, 1.0), 40)) == [0, 1]
    assert numbers(fuse([found(0.5, first=1)], [found(25.0)], fusion, (1.0, 1.0), 40)) == [0, 1]


def test_a_sum_takes_the_scores_as_they_are_and_what_a_full_list_left_out_as_its_last() -> None:
    dense, bm25 = found(0.9, 0.5), found(10.0, first=1)
    whole = {one.chunk.number: one.score for one in fuse([dense], [bm25], "sum", (1.0, 1.0), 40)}
    assert whole == pytest.approx({0: 0.9, 1: 0.5 + 10.0 * BM25_UNIT})
    full = {one.chunk.number: one.score for one in fuse([dense], [bm25], "sum", (1.0, 2.0), 2)}
    assert full == pytest.approx({0: 0.4, 1: 2.0 * 10.0 * BM25_UNIT})


def test_one_weak_word_does_not_outdo_a_near_meaning_in_a_sum() -> None:
    dense, bm25 = found(0.8, 0.3), found(1.5, 1.4, first=1)
    assert numbers(fuse([dense], [bm25], "dbsf", (1.0, 1.0), 40))[0] == 1
    assert numbers(fuse([dense], [bm25], "sum", (1.0, 1.0), 40))[0] == 0


def test_nothing_found_is_nothing_fused() -> None:
    assert fuse([], [], "dbsf", (1.0, 1.0), 40) == []
    assert fuse([()], [()], "rrf", (1.0, 1.0), 40) == []
