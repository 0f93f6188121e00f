"""Our words for queries and points, said in qdrant-client's."""

from collections.abc import Sequence
from typing import Any

from qdrant_client import models

from business_api.vector_store.collection import (
    BM25,
    DENSE,
    Above,
    AtMost,
    Condition,
    Is,
    Itself,
    NewPoint,
    OneOf,
    Sparse,
    Vector,
    Where,
)


def filter_of(where: Where) -> models.Filter:
    """A filter that holds when all conditions do."""
    return models.Filter(must=[_condition(one) for one in where])


def _condition(one: Condition) -> models.FieldCondition | models.HasIdCondition:
    match one:
        case Itself(point):
            return models.HasIdCondition(has_id=[point])
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


def requests_of(
    vectors: Sequence[Vector], where: Where, corpus: Where, limit: int, fields: Sequence[str]
) -> list[models.QueryRequest]:
    """A request for each vector."""
    params = models.SearchParams(idf=models.IdfCorpusParams(corpus=filter_of(corpus)))
    return [
        models.QueryRequest(
            query=_nearest(vector),
            using=BM25 if isinstance(vector, Sparse) else DENSE,
            filter=filter_of(where),
            params=params if isinstance(vector, Sparse) else None,
            limit=limit,
            with_payload=list(fields) or False,
        )
        for vector in vectors
    ]


def _nearest(vector: Vector) -> Any:
    if isinstance(vector, Sparse):
        return models.SparseVector(indices=vector.indices, values=vector.values)
    return [float(x) for x in vector]
