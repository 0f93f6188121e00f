"""Our words for queries and points, said in qdrant-client's."""

from collections.abc import Sequence
from typing import Any

from qdrant_client import models

from business_api.vector_store.collection import (
    BM25,
    DENSE,
    RRF_K,
    Above,
    AtMost,
    Branch,
    Condition,
    Hybrid,
    Is,
    NewPoint,
    OneOf,
    Sparse,
    Where,
)


def filter_of(where: Where) -> models.Filter:
    """A filter that holds when all conditions do."""
    return models.Filter(must=[_condition(one) for one in where])


def _condition(one: Condition) -> models.FieldCondition:
    match one:
        case OneOf(key, values):
            return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))
        case Is(key, value):
            return models.FieldCondition(key=key, match=models.MatchValue(value=value))
        case AtMost(key, value):
            return models.FieldCondition(key=key, range=models.Range(lte=value))
        case Above(key, value):
            return models.FieldCondition(key=key, range=models.Range(gt=value))


def point_of(point: NewPoint) -> models.PointStruct:
    """A point with those of its vectors that it has."""
    vectors: dict[str, Any] = {}
    if point.dense is not None:
        vectors[DENSE] = [float(x) for x in point.dense]
    if point.bm25 is not None:
        vectors[BM25] = models.SparseVector(indices=point.bm25.indices, values=point.bm25.values)
    return models.PointStruct(id=point.id, vector=vectors, payload=point.payload)


def query_of(query: Hybrid) -> dict[str, Any]:
    """Arguments of `query_points`; a weighted DBSF sums branches that are normalised each by itself."""
    where = filter_of(query.where)
    branches = [_branch(branch, query.candidates, where) for branch in query.branches]
    fusion: Any = models.FusionQuery(fusion=models.Fusion.DBSF)
    if query.fusion == "rrf":
        fusion = models.RrfQuery(
            rrf=models.Rrf(k=RRF_K, weights=[branch.weight for branch in query.branches])
        )
    if query.weighted:
        branches = [
            models.Prefetch(prefetch=[one], query=fusion, limit=query.candidates, filter=where)
            for one in branches
        ]
        fusion = _weighted_sum(query.branches)
    return {
        "query": fusion,
        "prefetch": branches,
        "query_filter": where,
        "limit": query.limit,
        "with_payload": True,
    }


def _branch(branch: Branch, candidates: int, where: models.Filter) -> models.Prefetch:
    if isinstance(branch.vector, Sparse):
        return models.Prefetch(
            query=models.SparseVector(indices=branch.vector.indices, values=branch.vector.values),
            using=branch.using,
            limit=candidates,
            filter=where,
            params=models.SearchParams(idf=models.IdfCorpusParams(corpus=where)),
        )
    dense = [float(x) for x in branch.vector]
    return models.Prefetch(query=dense, using=branch.using, limit=candidates, filter=where)


def _weighted_sum(branches: Sequence[Branch]) -> models.FormulaQuery:
    scores = [f"$score[{place}]" for place in range(len(branches))]
    terms = [
        models.MultExpression(mult=[branch.weight, score])
        for branch, score in zip(branches, scores, strict=True)
    ]
    return models.FormulaQuery(
        formula=models.SumExpression(sum=list(terms)), defaults=dict.fromkeys(scores, 0.0)
    )
