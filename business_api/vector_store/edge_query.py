"""Our words for queries and points, said in the embedded engine's."""

from collections.abc import Sequence
from typing import Any

import qdrant_edge as edge

from business_api.vector_store.collection import (
    BM25,
    DENSE,
    INTEGERS,
    KEYWORDS,
    RRF_K,
    TENANT,
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


def layout(dimension: int) -> edge.EdgeConfig:
    """Vectors of a new collection. One search thread: questions come in one at a time anyway."""
    return edge.EdgeConfig(
        # mapped, not read ahead: the engine makes room for 32 MB of vectors at a time
        vectors={DENSE: edge.EdgeVectorParams(dimension, edge.Distance.Cosine, memory=edge.Memory.Cold)},
        sparse_vectors={BM25: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        max_search_threads=1,
    )


def indexes() -> list[edge.UpdateOperation]:
    """Payload indexes; they are made before the first point is."""
    schemas: dict[str, Any] = {TENANT: edge.KeywordIndexParams(is_tenant=True)}
    schemas |= {key: edge.KeywordIndexParams() for key in KEYWORDS}
    schemas |= {key: edge.IntegerIndexParams(lookup=False, range=True) for key in INTEGERS}
    return [edge.UpdateOperation.create_field_index(key, schema) for key, schema in schemas.items()]


def filter_of(where: Where) -> edge.Filter:
    """A filter that holds when all conditions do."""
    return edge.Filter(must=[_condition(one) for one in where])


def _condition(one: Condition) -> edge.FieldCondition:
    match one:
        case OneOf(key, values):
            return edge.FieldCondition(key, match=edge.MatchAny(list(values)))
        case Is(key, value):
            return edge.FieldCondition(key, match=edge.MatchValue(value))
        case AtMost(key, value):
            return edge.FieldCondition(key, range=edge.RangeFloat(lte=value))
        case Above(key, value):
            return edge.FieldCondition(key, range=edge.RangeFloat(gt=value))


def point_of(point: NewPoint) -> edge.Point:
    """A point with those of its vectors that it has."""
    vectors: dict[str, Any] = {}
    if point.dense is not None:
        vectors[DENSE] = [float(x) for x in point.dense]
    if point.bm25 is not None:
        vectors[BM25] = edge.SparseVector(point.bm25.indices, point.bm25.values)
    return edge.Point(point.id, vectors, point.payload)


def request_of(query: Hybrid) -> edge.QueryRequest:
    """One request; a weighted DBSF is a sum over branches that are normalised each by itself."""
    where = filter_of(query.where)
    branches = [_branch(branch, query.candidates, where) for branch in query.branches]
    fusion: Any = edge.Fusion.Dbsf()
    if query.fusion == "rrf":
        fusion = edge.Fusion.Rrf(RRF_K, [branch.weight for branch in query.branches])
    if query.weighted:
        branches = [
            edge.Prefetch(query.candidates, query=fusion, prefetches=[one], filter=where) for one in branches
        ]
        fusion = _weighted_sum(query.branches)
    return edge.QueryRequest(
        query.limit, query=fusion, prefetches=branches, filter=where, with_payload=True, with_vector=False
    )


def _branch(branch: Branch, candidates: int, where: edge.Filter) -> edge.Prefetch:
    if isinstance(branch.vector, Sparse):
        sparse = edge.SparseVector(branch.vector.indices, branch.vector.values)
        nearest = edge.Query.Nearest(sparse, using=branch.using)
        params = edge.SearchParams(idf=edge.IdfParams(corpus=where))
        return edge.Prefetch(candidates, query=nearest, filter=where, params=params)
    nearest = edge.Query.Nearest([float(x) for x in branch.vector], using=branch.using)
    return edge.Prefetch(candidates, query=nearest, filter=where)


def _weighted_sum(branches: Sequence[Branch]) -> edge.Formula:
    scores = [f"$score[{place}]" for place in range(len(branches))]
    terms = [
        edge.Expression.Mult([edge.Expression.Constant(branch.weight), edge.Expression.Variable(score)])
        for branch, score in zip(branches, scores, strict=True)
    ]
    return edge.Formula(edge.Expression.Sum(terms), dict.fromkeys(scores, 0.0))
